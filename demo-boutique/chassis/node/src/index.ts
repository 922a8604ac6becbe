/** What a TypeScript service of the shop has besides its own job. */
export { chaosServer } from './chaos';
export { Dependency } from './dependency';
export { drained, signalled, within } from './drain';
export * as env from './env';
export { Faults } from './faults';
export { Health } from './health';
export { Knobs, NO_FAULTS, knobsFrom } from './knobs';
export { EVERYWHERE, LOOPBACK, listen } from './listen';
export { alias, boutiqueService, serviceOf } from './proto';
export { Refusal } from './refusal';
export { traced, traceparentIn } from './trace';
export { unary } from './unary';

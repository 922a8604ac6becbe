import { Server } from '@grpc/grpc-js';
import { Faults } from './faults';
import { Knobs } from './knobs';
import { boutiqueService } from './proto';
import { unary } from './unary';

/** Lets whoever is inside the pod turn the knobs while the service runs. */
export function chaosServer(faults: Faults): Server {
  const set = unary<Knobs, Knobs>(new Faults(), (knobs) => {
    faults.set(knobs);
    return faults.knobs;
  });
  const server = new Server();
  server.addService(boutiqueService('Chaos'), { set });
  return server;
}

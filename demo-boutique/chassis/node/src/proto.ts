/** Service definitions, read from the shop's .proto files when the process starts. */
import { join } from 'node:path';
import { GrpcObject, ServiceClientConstructor, ServiceDefinition, loadPackageDefinition } from '@grpc/grpc-js';
import { Options, loadSync } from '@grpc/proto-loader';

/** From chassis/node/dist to the folder that all services share. */
const PROTO_DIR = join(__dirname, '../../../proto');

const OPTIONS: Options = {
  includeDirs: [PROTO_DIR],
  longs: Number, // no amount or time of this shop is beyond 2^53
  enums: String,
  defaults: true,
};

/** The definition of `boutique.v1.<name>`, from <name>.proto. */
export function boutiqueService(name: string): ServiceDefinition {
  return serviceOf(`boutique/v1/${name.toLowerCase()}.proto`, `boutique.v1.${name}`);
}

/** The definition of a service by its full name. */
export function serviceOf(file: string, fullName: string): ServiceDefinition {
  let found: unknown = loadPackageDefinition(loadSync(file, OPTIONS));
  for (const part of fullName.split('.')) found = (found as GrpcObject)[part];
  return (found as ServiceClientConstructor).service;
}

/** The same service under another name, for callers that know it by that one. */
export function alias(definition: ServiceDefinition, fullName: string): ServiceDefinition {
  return Object.fromEntries(
    Object.entries(definition).map(([name, method]) => [
      name,
      { ...method, path: `/${fullName}/${method.path.split('/').at(-1)}` },
    ]),
  );
}

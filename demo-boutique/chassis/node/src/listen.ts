import { Server, ServerCredentials } from '@grpc/grpc-js';

/** Both address families, or the one that there is. */
export const EVERYWHERE = ['[::]', '0.0.0.0'];
export const LOOPBACK = ['127.0.0.1'];

/** Listens on the first of the hosts that works, and says on which port. */
export async function listen(server: Server, hosts: string[], port: number): Promise<number> {
  const [host, ...others] = hosts;
  return new Promise<number>((resolve, reject) => {
    server.bindAsync(`${host}:${port}`, ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  }).catch((error) => {
    if (others.length > 0) return listen(server, others, port);
    throw error;
  });
}

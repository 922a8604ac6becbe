/** Tells the log when a dependency starts to fail and when it is well again, and nothing in between. */
import { ServiceError, status } from '@grpc/grpc-js';

const failing = new Set<string>();

/** Passes the outcome of a call to `dependency` through. */
export async function watched<T>(dependency: string, call: Promise<T>): Promise<T> {
  try {
    const answer = await call;
    if (failing.delete(dependency)) console.log(`storefront: ${dependency} is well again`);
    return answer;
  } catch (error) {
    const { code, details } = error as ServiceError;
    if (!failing.has(dependency)) console.log(`storefront: ${dependency} fails: ${status[code] ?? ''} ${details ?? error}`);
    failing.add(dependency);
    throw error;
  }
}

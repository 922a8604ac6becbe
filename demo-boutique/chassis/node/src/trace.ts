/** W3C trace context: the caller's traceparent goes along on every call made for it. */
import { Metadata } from '@grpc/grpc-js';

const WELL_FORMED = /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/;

/** The traceparent in a request's headers, unless it is no such thing. */
export function traceparentIn(headers: Record<string, string | string[] | undefined>): string | undefined {
  const value = headers['traceparent'];
  return typeof value === 'string' && WELL_FORMED.test(value) ? value : undefined;
}

/** Metadata for an outgoing call. */
export function traced(traceparent: string | undefined): Metadata {
  const metadata = new Metadata();
  if (traceparent) metadata.set('traceparent', traceparent);
  return metadata;
}

/** A WebSocket that says back what it hears: for tests of what lies between browser and shop. */
import { IncomingMessage, Server } from 'node:http';
import { Duplex } from 'node:stream';
import { WebSocket, WebSocketServer } from 'ws';

const MESSAGE_BYTES_MAX = 1 << 20;
/** Unsent bytes beyond which no more is read: whoever does not listen gets no more to say. */
const UNSENT_BYTES_MAX = 64 * 1024;
const GOING_AWAY = 1001;
const SOCKETS_MAX = 256;

export class Echo {
  readonly #sockets = new WebSocketServer({ noServer: true, maxPayload: MESSAGE_BYTES_MAX });

  /** Takes over upgrades to /ws; any other gets a 404, and one too many a 503. */
  attach(server: Server): void {
    server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      socket.on('error', () => socket.destroy());
      if (request.url?.split('?')[0] !== '/ws') {
        return void socket.end(refusal('404 Not Found'));
      }
      if (this.#sockets.clients.size >= SOCKETS_MAX) return void socket.end(refusal('503 Service Unavailable'));
      this.#sockets.handleUpgrade(request, socket, head, echo);
    });
  }

  /** Says goodbye to all that are connected. */
  drain(): void {
    for (const socket of this.#sockets.clients) socket.close(GOING_AWAY, 'draining');
  }
}

function refusal(status: string): string {
  return `HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`;
}

function echo(socket: WebSocket): void {
  socket.on('error', () => socket.terminate());
  socket.on('message', (data, binary) => {
    socket.send(data, { binary }, () => {
      if (socket.isPaused && socket.bufferedAmount <= UNSENT_BYTES_MAX) socket.resume();
    });
    if (socket.bufferedAmount > UNSENT_BYTES_MAX) socket.pause();
  });
}

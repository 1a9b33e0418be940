// A fan-out server as it is commonly written: each message of a Redis channel goes to each of its clients, and nobody
// looks at `bufferedAmount`. node server.mjs PORT REDIS_URL
import { Redis } from "ioredis";
import { WebSocketServer } from "ws";

const [port, url] = process.argv.slice(2);
const redis = new Redis(url);
const clients = new Map(); // by channel
const prefix = "/raw/";

const server = new WebSocketServer({ host: "127.0.0.1", port: Number(port), perMessageDeflate: false, backlog: 4096 });

server.on("connection", (socket, request) => {
  if (!request.url.startsWith(prefix)) {
    socket.close(1008);
    return;
  }
  const channel = decodeURIComponent(request.url.slice(prefix.length));
  let members = clients.get(channel);
  if (!members) {
    clients.set(channel, (members = new Set()));
    redis.subscribe(channel);
  }
  members.add(socket);
  socket.on("error", () => {}); // "close" follows
  socket.on("close", () => {
    members.delete(socket);
    if (members.size === 0 && clients.get(channel) === members) {
      clients.delete(channel);
      redis.unsubscribe(channel);
    }
  });
});

redis.on("message", (channel, message) => {
  for (const socket of clients.get(channel) ?? []) {
    socket.send(message);
  }
});

process.on("SIGTERM", () => process.exit(0));
process.on("SIGINT", () => process.exit(0));

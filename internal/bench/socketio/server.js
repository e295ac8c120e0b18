// The chat's room on Socket.IO, set up as it is fastest: WebSockets alone, no
// compression, and the sharded adapter, which sends a message to one primary of
// the cluster and keeps a channel for each room. The client is ioredis, as
// Socket.IO's documentation advises.
//
//   node server.js LISTEN NODE,NODE…    each host:port
"use strict";

const http = require("node:http");
const { Server } = require("socket.io");
const { createShardedAdapter } = require("@socket.io/redis-adapter");
const { Cluster } = require("ioredis");

const [listen, ...nodes] = [process.argv[2], ...process.argv[3].split(",")].map((address) => {
  const [host, port] = address.split(":");
  return { host, port: Number(port) };
});

async function connect() {
  const client = new Cluster(nodes, { shardedSubscribers: true, lazyConnect: true });
  await client.connect();
  return client;
}

async function main() {
  const server = http.createServer();
  const io = new Server(server, {
    adapter: createShardedAdapter(await connect(), await connect()),
    transports: ["websocket"],
    perMessageDeflate: false,
    httpCompression: false,
    serveClient: false,
  });
  io.on("connection", (socket) => {
    const { room, name } = socket.handshake.query;
    socket.join(room);
    socket.on("msg", (text) => {
      io.to(room).emit("msg", { from: name, text, room, time: new Date().toISOString() });
    });
  });
  server.listen(listen.port, listen.host, () => {
    console.error(`listening addr=${listen.host}:${server.address().port}`);
  });
}

main().catch((err) => {
  console.error(err);
  process.exit(1);
});

"use strict";
// The client as the programs use it.

const { CompressionCodecs, CompressionTypes, Kafka, Partitioners, logLevel } = require("kafkajs");
const lz4 = require("lz4js");

const SECONDS_MAX = 30;

// Penstock's producers compress with LZ4, which this client leaves to others.
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async ({ buffer }) => Buffer.from(lz4.compress(buffer)),
  decompress: async (raw) => Buffer.from(lz4.decompress(raw)),
});

const connect = (servers) => new Kafka({ brokers: servers.split(","), logLevel: logLevel.ERROR });

// A member of a group that reads a topic from its beginning until it has seen enough.
exports.records = async (servers, group, topic, count) => {
  const found = [];
  if (count === 0) return found;
  const member = connect(servers).consumer({ groupId: group });
  await member.connect();
  await member.subscribe({ topics: [topic], fromBeginning: true });
  await new Promise((enough, late) => {
    const timer = setTimeout(
      () => late(new Error(`${found.length} of ${count} records`)), SECONDS_MAX * 1000,
    );
    member.run({
      eachMessage: async ({ partition, message }) => {
        found.push({ partition, ...message });
        if (found.length >= count) enough(clearTimeout(timer));
      },
    });
  });
  await member.disconnect();
  return found;
};

// Send messages and return where each was put. The partitioner is the client's default, named
// because it says otherwise on every start that it once was another one.
exports.send = async (servers, topic, messages) => {
  const producer = connect(servers).producer({
    createPartitioner: Partitioners.DefaultPartitioner, idempotent: true,
  });
  await producer.connect();
  const places = [];
  for (const message of messages) {
    const [place] = await producer.send({ topic, messages: [message] });
    places.push({ partition: place.partition, offset: Number(place.baseOffset) });
  }
  await producer.disconnect();
  return places;
};

"use strict";
// Reads the values of a topic in Avro, prints them, and writes each to another topic with one text
// in it changed. Arguments: servers, group, topic, count, schema file, other topic, field, text.

const { readFileSync } = require("node:fs");
const avro = require("avsc");
const { records, send } = require("./kafka");
const { print, run } = require("./lines");

const HEAD_BYTES = 5;

const read = (type, raw) => {
  if (raw[0] !== 0) throw new Error("not in Confluent's framing");
  return type.fromBuffer(raw.subarray(HEAD_BYTES));
};

run(async (servers, group, topic, count, schema, other, field, text) => {
  const type = avro.Type.forSchema(JSON.parse(readFileSync(schema, "utf8")));
  const changed = [];
  for (const { key, value: raw } of await records(servers, group, topic, Number(count))) {
    const value = read(type, raw);
    print({ id: raw.readInt32BE(1), value: JSON.stringify(value) });
    value[field] = text;
    const body = Buffer.concat([raw.subarray(0, HEAD_BYTES), type.toBuffer(value)]);
    changed.push({ key, value: body });
  }
  await send(servers, other, changed);
});

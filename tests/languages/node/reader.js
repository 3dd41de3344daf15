"use strict";
// Prints the records of a topic as the client gives them, and what the CloudEvents SDK makes of
// each. Arguments: servers, group, topic, count.

const { Kafka: Binding } = require("cloudevents");
const { records } = require("./kafka");
const { print, run, text } = require("./lines");

const told = (headers, message) => {
  const event = Binding.toEvent({ ...message, headers, value: message.value });
  event.validate();
  const { specversion, id, type, source, time, datacontenttype, data } = event;
  return {
    specversion, id, type, source, at: time ? Date.parse(time) : null,
    content: datacontenttype ?? null,
    data: Buffer.isBuffer(data) ? text(data) : typeof data === "string" ? data : JSON.stringify(data),
  };
};

run(async (servers, group, topic, count) => {
  for (const message of await records(servers, group, topic, Number(count))) {
    const headers = Object.entries(message.headers).map(([name, said]) => [name, text(said)]);
    const named = Object.fromEntries(headers);
    print({
      key: text(message.key), partition: message.partition, offset: Number(message.offset),
      value: text(message.value), headers,
      event: named.ce_specversion === undefined ? null : told(named, message),
    });
  }
});

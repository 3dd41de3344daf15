"use strict";
// Sends a record for each line of its input (key, value, headers), and prints where the client put
// it. Arguments: servers, topic.

const { send } = require("./kafka");
const { all, print, run } = require("./lines");

run(async (servers, topic) => {
  (await send(servers, topic, all())).forEach(print);
});

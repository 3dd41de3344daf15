"use strict";
// What goes in and out of the programs: a JSON value a line.

const { readFileSync } = require("node:fs");

exports.print = (line) => process.stdout.write(JSON.stringify(line) + "\n");

exports.all = () =>
  readFileSync(0, "utf8").split("\n").filter(Boolean).map((line) => JSON.parse(line));

exports.text = (raw) => (raw === null || raw === undefined ? null : raw.toString("utf8"));

// A program that fails says why and ends with 1, whatever is still open.
exports.run = (main) =>
  main(...process.argv.slice(2)).catch((error) => {
    console.error(error);
    process.exit(1);
  });

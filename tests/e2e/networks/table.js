// Writes figures, one JSON object a line on standard input, as a table between the marks of a file: node table.js FILE.
import { readFileSync, writeFileSync } from 'node:fs';

const [BEGIN, END] = ['<!-- figures: written by make networks -->', '<!-- end of figures -->'];
const file = process.argv[2];
const figures = readFileSync(0, 'utf8').split('\n').filter((line) => line.startsWith('{')).map((line) => JSON.parse(line));
const rows = ['| case | figure | value | bound | holds |', '|---|---|---:|---:|---|'];
let last;
for (const { case: name, figure, value, bound, holds } of figures) {
  const judged = bound === '-' ? '' : holds ? 'yes' : '**no**';
  rows.push(`| ${name === last ? '' : name} | ${figure} | ${value} | ${bound === '-' ? '' : bound} | ${judged} |`);
  last = name;
}
const text = readFileSync(file, 'utf8');
const [before, after] = [text.indexOf(BEGIN), text.indexOf(END)];
if (before < 0 || after < before) {
  throw new Error(`${file} has no marks for the table`);
}
writeFileSync(file, `${text.slice(0, before + BEGIN.length)}\n\n${rows.join('\n')}\n\n${text.slice(after)}`);
const broken = figures.filter(({ holds }) => !holds);
process.stdout.write(`${figures.length} figures in ${file}, ${broken.length} bounds do not hold\n`);
for (const { case: name, figure, value, bound } of broken) {
  process.stdout.write(`  ${name}: ${figure} is ${value}, not ${bound}\n`);
}

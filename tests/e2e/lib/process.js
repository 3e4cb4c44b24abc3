// Starts and stops the processes under test, always by their own id.
import { spawn } from 'node:child_process';

/** A running child process with its output kept for failure messages. */
export class Child {
  constructor(command, args, options = {}) {
    this.name = command.split('/').pop();
    this.log = '';
    this.lines = [];
    this.waiting = [];
    this.process = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
    this.exited = new Promise((resolve) => {
      this.process.once('error', (error) => {
        this.log += `${error.message}\n`;
        resolve({ code: null, error });
      });
      this.process.once('exit', (code, signal) => resolve({ code, signal }));
    });
    this.exited.then((how) => {
      this.over = how;
      this.waiting.splice(0).forEach((wake) => wake());
    });
    let partial = '';
    this.process.stdout.setEncoding('utf8').on('data', (text) => {
      this.#keep(text);
      partial += text;
      const lines = partial.split('\n');
      partial = lines.pop();
      this.lines.push(...lines);
      this.waiting.splice(0).forEach((wake) => wake());
    });
    this.process.stderr.setEncoding('utf8').on('data', (text) => this.#keep(text));
  }

  #keep(text) {
    this.log = (this.log + text).slice(-20_000);
  }

  /** The first line of standard output that `pick` accepts, as `pick` returned it. */
  async line(pick, timeoutMs) {
    const deadline = Date.now() + timeoutMs;
    let from = 0;
    for (;;) {
      for (; from < this.lines.length; from += 1) {
        const found = pick(this.lines[from]);
        if (found !== undefined) {
          return found;
        }
      }
      const left = deadline - Date.now();
      if (this.over || left <= 0) {
        throw new Error(
          `${this.name} ${this.over ? `ended (${JSON.stringify(this.over)})` : `printed nothing fitting in ${timeoutMs} ms`}:\n${this.log}`,
        );
      }
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, left);
        this.waiting.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
  }

  /** Asks the process to end, and insists after a while. */
  async stop(signal = 'SIGINT', graceMs = 5000) {
    if (this.over) {
      return this.over;
    }
    this.process.kill(signal);
    const timer = setTimeout(() => this.process.kill('SIGKILL'), graceMs);
    const how = await this.exited;
    clearTimeout(timer);
    return how;
  }
}

/** Reads a line as JSON object; other lines are passed over. */
export function json(line) {
  if (!line.startsWith('{')) {
    return undefined;
  }
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

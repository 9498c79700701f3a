import { Socket } from "node:net";

/**
 * Runs in a thread of the slot. The worker holds the other end of standard input and never writes. When the worker
 * ends, in whatever way, this end closes and the slot is killed: its main thread may be in a native run that never
 * returns.
 */
const lifeline = new Socket({ fd: 0, readable: true, writable: false });
const die = () => process.kill(process.pid, "SIGKILL");
lifeline.on("end", die);
lifeline.on("error", die);
lifeline.resume();

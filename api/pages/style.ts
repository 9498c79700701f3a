/** The style of both pages. */
export const style = `
:root { color-scheme: light dark; --line: #8884; --quiet: #777; --accent: #0b6bcb; }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 1.5rem; }
header { align-items: baseline; border-bottom: 1px solid var(--line); display: flex; flex-wrap: wrap; gap: 1.25rem; }
h1 { font-size: 1.4rem; margin: 0 auto .6rem 0; }
h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
a { color: var(--accent); }
label { display: block; font-size: .9rem; margin: 1rem 0 .25rem; }
input, select, textarea, button {
  border: 1px solid var(--line); border-radius: .4rem; font: inherit; padding: .5rem .7rem; width: 100%;
}
textarea, code, pre { font-family: ui-monospace, monospace; font-size: .85rem; }
textarea { height: 14rem; resize: vertical; }
button { background: var(--accent); border: 0; color: #fff; cursor: pointer; margin-top: 1rem; width: auto; }
button:disabled { cursor: wait; opacity: .5; }
pre { border: 1px solid var(--line); border-radius: .4rem; max-height: 24rem; overflow: auto; padding: .8rem; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .5rem; text-align: left; vertical-align: top; }
#probabilities td:first-child { white-space: nowrap; width: 1%; }
td.number { font-variant-numeric: tabular-nums; text-align: right; width: 6rem; }
progress { accent-color: var(--accent); width: 100%; }
.quiet { color: var(--quiet); font-size: .9rem; }
.fault { color: #c22; white-space: pre-wrap; }
.method { display: inline-block; font-weight: 600; min-width: 3.5rem; }
details { border: 1px solid var(--line); border-radius: .4rem; margin: .5rem 0; padding: .5rem .8rem; }
summary { cursor: pointer; }
`;

/**
 * ONNX Runtime's message without what only its authors read: source files, C++ functions and the conditions that they
 * checked, its own error codes, and the path of the model's file, which becomes `name`. What it says about the model,
 * its nodes and shapes stays.
 */
export function readableFault(message: string, file?: string, name = ""): string {
  let text = message.slice(0, longestMessage);
  if (file !== undefined) text = text.replaceAll(`Load model from ${file} failed:`, "").replaceAll(file, name);
  text = withoutLocations(text).replaceAll(/\[ONNXRuntimeError\] : \d+ : \w+ : /g, "");
  for (const [pattern, words] of leftovers) text = text.replaceAll(pattern, words);
  text = text.replaceAll(/\s+/g, " ").trim();
  return text === "" ? "ONNX Runtime gives no reason" : text;
}

const longestMessage = 4000;

/** Where in the source: `reshape_helper.h:91`, with or without its folders. */
const location = /(?:\b[A-Za-z]:)?(?:[\w.+-]*[\\/])*[\w.+-]+\.(?:cc|cpp|cxx|cu|cuh|h|hpp|inc|inl):\d+ */g;

const leftovers: readonly (readonly [RegExp, string])[] = [
  // Names with a namespace, and types with their parameters.
  [/(?:\b\w+(?:<[^<>]*>)?::)+~?\w+(?:<[^<>]*>)?/g, ""],
  [/::(?=\w)/g, ""],
  // What the C++ library says of a text that is no number.
  [/\bsto(?:d|f|i|l|ll|ul|ull|ld)\b/g, "a text is not a number"],
];

/** Cuts out every place in the source, with the function that it is in and the condition that did not hold. */
function withoutLocations(message: string): string {
  const parts: string[] = [];
  let from = 0;
  for (const found of message.matchAll(location)) {
    const at = found.index;
    if (at < from) continue;
    parts.push(message.slice(from, at));
    const after = at + found[0].length;
    // With its folders comes the whole signature, without them the function's name alone.
    from = /[\\/]/.test(found[0]) ? afterCondition(message, afterSignature(message, after)) : afterName(message, after);
  }
  parts.push(message.slice(from));
  return parts.join("");
}

function afterName(text: string, from: number): number {
  const name = /^\w+(?:::\w+)* /.exec(text.slice(from));
  return from + (name?.[0].length ?? 0);
}

/** The end of `static void a::B<c>::d(e<f>, g) const [with h = i] `. */
function afterSignature(text: string, from: number): number {
  let at = text.indexOf("(", from);
  if (at < 0) return from;
  for (;;) {
    at = afterBrackets(text, at, "(", ")");
    const next = /^[^\s(]*\(/.exec(text.slice(at));
    if (next === null) break;
    // Of a lambda or a function type, which goes on.
    at += next[0].length - 1;
  }
  at += /^[^\s]*(?: const| noexcept| &&?)* */.exec(text.slice(at))?.[0].length ?? 0;
  if (text.startsWith("[with ", at)) at = afterBrackets(text, at, "[", "]");
  return at + (/^ */.exec(text.slice(at))?.[0].length ?? 0);
}

/** After the bracket that closes the one at `from`, or the end. */
function afterBrackets(text: string, from: number, open: string, close: string): number {
  let depth = 0;
  for (let i = from; i < text.length; i++) {
    if (text[i] === open) depth += 1;
    else if (text[i] === close && --depth === 0) return i + 1;
  }
  return text.length;
}

/** After `size == 2 * rank was false. `, which says in C++ what the rest says in words. */
function afterCondition(text: string, from: number): number {
  const end = text.slice(from).search(/ was false\. ?/);
  const isCondition = end >= 0 && !text.slice(from, from + end).includes(". ");
  return isCondition ? from + end + (/ was false\. ?/.exec(text.slice(from))?.[0].length ?? 0) : from;
}

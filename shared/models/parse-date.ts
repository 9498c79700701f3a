const hourMinute = String.raw`(?:[01]\d|2[0-3]):[0-5]\d`;
/** A full date, alone or with a time and its offset. */
const rfc3339 = new RegExp(
  String.raw`^(\d{4})-(\d\d)-(\d\d)(?:[Tt ]${hourMinute}:[0-5]\d(?:\.\d{1,9})?(?:[Zz]|[+-]${hourMinute}))?$`,
);
const monthDays = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/**
 * An RFC 3339 date or time as ms since the epoch; NaN for any other text and for a day or a time that does not exist,
 * which `Date.parse` would take for a later one. A leap second (`:60`) is none: a model counts 86,400 seconds a day.
 */
export function parseDate(text: string): number {
  const match = rfc3339.exec(text);
  if (match === null) return Number.NaN;
  const [year, month, day] = [Number(match[1]), Number(match[2]), Number(match[3])];
  const isLeap = (year % 4 === 0 && year % 100 !== 0) || year % 400 === 0;
  const days = month === 2 && isLeap ? 29 : (monthDays[month - 1] ?? 0);
  // In ECMAScript's form; `Date.parse` reads other forms in its own way.
  return day >= 1 && day <= days ? Date.parse(text.toUpperCase().replace(" ", "T")) : Number.NaN;
}

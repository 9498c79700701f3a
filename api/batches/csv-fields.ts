/** A field of a record of CSV, as it was written but for its quotes. */
export interface CsvField {
  text: string;
  quoted: boolean;
}

/** The fields of a record, or what is wrong with its quotes. */
export function splitFields(record: string): CsvField[] | string {
  const fields: CsvField[] = [];
  for (let at = 0; ; ) {
    if (record[at] !== '"') {
      const end = record.indexOf(",", at);
      fields.push({ text: record.slice(at, end < 0 ? record.length : end), quoted: false });
      if (end < 0) return fields;
      at = end + 1;
      continue;
    }
    let text = "";
    for (;;) {
      const end = record.indexOf('"', at + 1);
      if (end < 0) return "the quote that opens here is never closed";
      text += record.slice(at + 1, end);
      at = end + 1;
      if (record[at] !== '"') break;
      text += '"';
    }
    fields.push({ text, quoted: true });
    if (at === record.length) return fields;
    if (record[at] !== ",") return "a closing quote must be followed by a comma or the end of the line";
    at += 1;
  }
}

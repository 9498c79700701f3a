/** One key or argument of a step: its meaning, and the type of its value. */
export interface Field<T> {
  readonly about: string;
  /** Lua has no name of it: a key that only tells the slot, an argument that is passed on or not used. */
  readonly unnamed?: true;
  readonly optional?: true;
  /** Never there; it carries the type. */
  readonly type?: T;
}

/** Keys or arguments of a step by name, in the order in which they travel. */
export type Fields = Readonly<Record<string, Field<unknown>>>;

/** The values of fields. */
export type ValuesOf<F extends Fields> = { readonly [N in keyof F]: F[N] extends Field<infer T> ? T : never };

/** Text; a key is one, too. */
export const text = (about: string): Field<string> => ({ about });

/** Bytes, which may be those of a text. */
export const bytes = (about: string): Field<Buffer | string> => ({ about });

/** A number; its unit is part of its name. */
export const number = (about: string): Field<number> => ({ about });

/** Yes or no, which Lua sees as '1' or '0'. */
export const flag = (about: string): Field<boolean> => ({ about });

/** A field that may be null: an argument is '' then. Of the keys only the last can be, and is left out. */
export const optional = <T>(field: Field<T>): Field<T | null> => ({ about: field.about, optional: true });

/** A field that Lua does not name. */
export const unnamed = <T>(field: Field<T>): Field<T> => ({ ...field, unnamed: true });

/** A value as it travels. */
export type Argument = string | number | Buffer;

/** Appends the values of fields to the arguments, in the order of `names`. */
export function pushValues(
  args: Argument[],
  names: readonly string[],
  values: Readonly<Record<string, unknown>>,
): void {
  for (const name of names) {
    const value = values[name];
    args.push(value === null ? "" : typeof value === "boolean" ? Number(value) : (value as Argument));
  }
}

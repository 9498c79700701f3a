/** One key or argument of a step: its meaning, and the type of its value. */
export interface Field<T> {
  readonly about: string;
  /** True for a field without a name in Lua: a key that only sets the hash slot, an argument passed on or unused. */
  readonly unnamed?: true;
  readonly optional?: true;
  /** Never set; it carries the type. */
  readonly type?: T;
}

/** Keys or arguments of a step by name, in the order of the command. */
export type Fields = Readonly<Record<string, Field<unknown>>>;

/** The values of fields. */
export type ValuesOf<F extends Fields> = { readonly [N in keyof F]: F[N] extends Field<infer T> ? T : never };

/** Text; also for keys. */
export const text = (about: string): Field<string> => ({ about });

/** Bytes, also as text. */
export const bytes = (about: string): Field<Buffer | string> => ({ about });

/** A number, with its unit in its name. */
export const number = (about: string): Field<number> => ({ about });

/** A boolean, in Lua '1' or '0'. */
export const flag = (about: string): Field<boolean> => ({ about });

/** A nullable field. A null argument is ''; a null key is omitted, so only the last key can be optional. */
export const optional = <T>(field: Field<T>): Field<T | null> => ({ about: field.about, optional: true });

/** A field without a name in Lua. */
export const unnamed = <T>(field: Field<T>): Field<T> => ({ ...field, unnamed: true });

/** The answer of a step: its meaning, and its type as the Redis client returns it. */
export interface Answer<A> {
  readonly about: string;
  /** Never set; it carries the type. */
  readonly type?: A;
}

/** The answer of a step. */
export const answers = <A>(about: string): Answer<A> => ({ about });

/** A value as sent to Redis. */
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

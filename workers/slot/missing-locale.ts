/**
 * The remedy for a version that ONNX Runtime refuses because this machine lacks a locale; null for any other fault.
 * StringNormalizer, which text models of scikit-learn begin with, takes en_US.UTF-8 where the model names none.
 */
export function missingLocale(fault: string): string | null {
  const name = /construct locale with name:\s*([\w.@-]+?):/.exec(fault)?.[1];
  if (name === undefined) return null;
  const language = name.replace(/\..*$/, "");
  return (
    `its StringNormalizer (TF-IDF and other text steps of scikit-learn) needs the locale ${name}, which this machine ` +
    `lacks: install it, as root on Debian or Ubuntu with "apt-get install locales && ` +
    `localedef -i ${language} -f UTF-8 ${name}", and start the worker again; the worker image has en_US.UTF-8`
  );
}

import luaparse, { type LuaNode } from "luaparse";

/** Faults of a Lua file, and the names that it declares for files that include it. */
export interface LuaFindings {
  undeclared: Set<string>;
  unused: Set<string>;
  /** Its outermost local names. */
  offered: Set<string>;
  /** Strings that are concatenated with `..`. */
  joinedTexts: Set<string>;
  /** Those of them beside a key of the step's table. */
  joinedToKeys: Set<string>;
}

interface Scope {
  names: Map<string, { used: boolean }>;
  parent: Scope | null;
}

/** `ITEM` stands for arguments from position `i` on, `ITEMKEY` for the key of item `n`. */
const placeMarkers = new Set(["i", "n"]);

/**
 * Parses a Lua file and finds undeclared names and unread locals: variables and functions, but not parameters and no
 * name that begins with `_`. Throws if it is not Lua 5.1.
 */
export function lintLua(text: string): LuaFindings {
  const found: LuaFindings = {
    undeclared: new Set(),
    unused: new Set(),
    offered: new Set(),
    joinedTexts: new Set(),
    joinedToKeys: new Set(),
  };

  const declare = (scope: Scope, name: string, used = false) => {
    scope.names.set(name, { used: used || placeMarkers.has(name) || name.startsWith("_") });
  };
  const read = (scope: Scope, name: string) => {
    for (let at: Scope | null = scope; at !== null; at = at.parent) {
      const local = at.names.get(name);
      if (local !== undefined) {
        local.used = true;
        return;
      }
    }
    found.undeclared.add(name);
  };
  const inside = (parent: Scope | null, visitAll: (scope: Scope) => void): Scope => {
    const scope: Scope = { names: new Map(), parent };
    visitAll(scope);
    for (const [name, { used }] of scope.names) if (!used) found.unused.add(name);
    return scope;
  };
  const nodes = (value: unknown) => (value ?? []) as LuaNode[];
  const nameOf = (node: unknown) => (node as { name: string }).name;
  const textOf = (node: LuaNode) => (node.type === "StringLiteral" ? (node.raw as string).slice(1, -1) : null);
  const isKey = (node: LuaNode) => node.type === "MemberExpression" && /^(ITEM)?KEY$/.test(nameOf(node.base));
  const visitEach = (list: unknown, scope: Scope) => {
    for (const node of nodes(list)) visit(node, scope);
  };

  function visit(node: LuaNode, scope: Scope): void {
    switch (node.type) {
      case "Identifier":
        read(scope, nameOf(node));
        return;
      case "LocalStatement":
        visitEach(node.init, scope);
        for (const variable of nodes(node.variables)) declare(scope, nameOf(variable));
        return;
      case "FunctionDeclaration":
        if (node.identifier !== null && node.isLocal) declare(scope, nameOf(node.identifier));
        inside(scope, (own) => {
          for (const parameter of nodes(node.parameters)) declare(own, nameOf(parameter), true);
          visitEach(node.body, own);
        });
        return;
      case "ForNumericStatement":
        for (const part of [node.start, node.end, node.step]) if (part) visit(part as LuaNode, scope);
        inside(scope, (own) => {
          declare(own, nameOf(node.variable));
          visitEach(node.body, own);
        });
        return;
      case "ForGenericStatement":
        visitEach(node.iterators, scope);
        inside(scope, (own) => {
          for (const [at, variable] of nodes(node.variables).entries()) declare(own, nameOf(variable), at === 0);
          visitEach(node.body, own);
        });
        return;
      case "MemberExpression":
        visit(node.base as LuaNode, scope);
        return;
      case "TableKeyString":
        visit(node.value as LuaNode, scope);
        return;
      case "BinaryExpression":
        if (node.operator === "..") {
          const [left, right] = [node.left, node.right] as [LuaNode, LuaNode];
          for (const text of [left, right].map(textOf)) if (text !== null) found.joinedTexts.add(text);
          // `a .. b .. c` is `a .. (b .. c)`.
          const next = textOf(right.operator === ".." ? (right.left as LuaNode) : right);
          if (isKey(left) && next !== null) found.joinedToKeys.add(next);
        }
        break;
    }
    const holdsBlock = ["IfClause", "ElseifClause", "ElseClause", "WhileStatement", "DoStatement", "RepeatStatement"];
    const visitParts = (own: Scope) => {
      for (const part of Object.values(node)) {
        if (Array.isArray(part)) visitEach(part, own);
        else if (typeof part === "object" && part !== null && "type" in part) visit(part as LuaNode, own);
      }
    };
    if (holdsBlock.includes(node.type)) inside(scope, visitParts);
    else visitParts(scope);
  }

  const outermost = inside(null, (scope) =>
    visitEach(luaparse.parse(text, { luaVersion: "5.1", comments: false }).body, scope),
  );
  for (const name of outermost.names.keys()) found.offered.add(name);
  return found;
}

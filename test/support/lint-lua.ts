import luaparse, { type LuaNode } from "luaparse";

/** What is wrong with a Lua file, and what it offers to files that include it. */
export interface LuaFindings {
  undeclared: Set<string>;
  unused: Set<string>;
  /** Its outermost local names. */
  offered: Set<string>;
  /** Texts that are put together with `..`. */
  joinedTexts: Set<string>;
}

interface Scope {
  names: Map<string, { used: boolean }>;
  parent: Scope | null;
}

/** `ITEM` stands for places that begin at `i`, `ITEMKEY` for the place of the item number `n`. */
const placeMarkers = new Set(["i", "n"]);

/**
 * Parses a Lua file, and finds names that are nowhere declared, and locals that are never read: variables and
 * functions, not parameters, and none whose name begins with `_`. Throws where it is no Lua 5.1.
 */
export function lintLua(text: string): LuaFindings {
  const found: LuaFindings = { undeclared: new Set(), unused: new Set(), offered: new Set(), joinedTexts: new Set() };

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
          for (const side of [node.left, node.right] as LuaNode[]) {
            if (side.type === "StringLiteral") found.joinedTexts.add((side.raw as string).slice(1, -1));
          }
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

// Types of luaparse's syntax tree; the package has none.
declare module "luaparse" {
  export interface LuaNode {
    type: string;
    [part: string]: unknown;
  }
  const luaparse: { parse(text: string, options: { luaVersion: "5.1"; comments: boolean }): LuaNode };
  export default luaparse;
}

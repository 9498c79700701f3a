import { type AppDependencies, createApp } from "@millrace/api/app.js";

export interface ServedRoute {
  method: string;
  /** As Express has it, such as `/v1/models/:model`. */
  path: string;
}

interface Layer {
  route?: { path: string; methods: Record<string, boolean> };
  handle?: { stack?: Layer[] };
}

/** Every route of the API's router, in its order; what the queue page serves under its own path is not among them. */
export function servedRoutes(): ServedRoute[] {
  // Routes are made without asking anything of what they will work with.
  const idle = { trustProxy: 0, crossOrigin: null, tracing: null, limits: null, keyPrefix: "none", metrics: {} };
  const app = createApp(idle as unknown as AppDependencies);
  const routesOf = ({ handle, route }: Layer): ServedRoute[] => {
    if (route === undefined) return (handle?.stack ?? []).flatMap(routesOf);
    const methods = Object.keys(route.methods).filter((method) => method !== "_all");
    return methods.map((method) => ({ method: method.toUpperCase(), path: route.path }));
  };
  return (app as unknown as { router: { stack: Layer[] } }).router.stack.flatMap(routesOf);
}

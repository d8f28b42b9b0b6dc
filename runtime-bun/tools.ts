/** Bun has Node's modules: the tools of subcommands are those of Node. */
export * from '../runtime-node/tools.ts'

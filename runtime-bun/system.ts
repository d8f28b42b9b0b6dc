/** Clock, names, files, standard streams and signals: Bun has the modules that Node's adapter uses. */
export * from '../runtime-node/system.ts'

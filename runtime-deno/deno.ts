/** The part of Deno's own interface that this adapter uses. Its package of declarations redefines those of Node. */

/** Numbers, and pointers and sizes as numbers or bigints. */
export type NativeType = 'i32' | 'u32' | 'usize' | 'isize' | 'pointer' | 'buffer' | 'void'

export interface NativeFunction {
  readonly name?: string
  readonly parameters: readonly NativeType[]
  readonly result: NativeType
  /** Runs on a thread of its own and returns a promise. */
  readonly nonblocking?: boolean
}

/** An opaque object, null for the address 0. */
export type PointerObject = { readonly deno: unique symbol } | null

type Value<Type extends NativeType> = Type extends 'void'
  ? undefined
  : Type extends 'pointer'
    ? PointerObject
    : Type extends 'buffer'
      ? Uint8Array<ArrayBuffer>
      : Type extends 'usize' | 'isize'
        ? number | bigint
        : number

type Values<Types extends readonly NativeType[]> = { -readonly [Index in keyof Types]: Value<Types[Index]> }

type Bound<Function extends NativeFunction> = (
  ...words: Values<Function['parameters']>
) => Function['nonblocking'] extends true ? Promise<Value<Function['result']>> : Value<Function['result']>

export interface DenoNamespace {
  readonly version: { readonly deno: string }
  readonly permissions: {
    querySync(what: { name: 'ffi' | 'env' | 'sys' | 'net' | 'read'; variable?: string; kind?: string }): {
      readonly state: 'granted' | 'denied' | 'prompt'
    }
  }
  dlopen<const Functions extends Readonly<Record<string, NativeFunction>>>(
    path: string,
    functions: Functions,
  ): { readonly symbols: { readonly [Name in keyof Functions]: Bound<Functions[Name]> } }
  readonly UnsafePointer: {
    of(bytes: Uint8Array<ArrayBuffer>): PointerObject
    value(pointer: PointerObject): number | bigint
  }
  readonly UnsafePointerView: {
    new (pointer: PointerObject): { getCString(): string }
    getArrayBuffer(pointer: PointerObject, bytes: number): ArrayBuffer
  }
}

/** Undefined in other runtimes, which load this file in tests. */
export const deno = Reflect.get(globalThis, 'Deno') as DenoNamespace

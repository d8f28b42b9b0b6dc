/** An error with a system error code. */
export const codeError = (code: string): NodeJS.ErrnoException => Object.assign(new Error(code), { code })

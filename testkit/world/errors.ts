/** An error as the system reports it. */
export const codeError = (code: string): NodeJS.ErrnoException => Object.assign(new Error(code), { code })

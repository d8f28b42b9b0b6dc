/** QR codes for terminals. A part of its own, which is loaded when a code is shown. */

import { encode } from 'uqr'

/** Light modules around a code, which ISO/IEC 18004 requires of readers with noise around. */
const QUIET_MODULES = 4
/** White on black, whatever the colours of the terminal are. */
const COLOURS = '\x1b[97;40m'
const NO_COLOURS = '\x1b[0m'

/** A QR code as text. */
export interface QrText {
  readonly lines: readonly string[]
  /** Columns that it needs. */
  readonly columns: number
}

/**
 * A text as a QR code of half blocks, two modules to a character. Light modules are drawn: without colours the code is
 * right on a dark background.
 * @param coloured sets the colours by escape sequences
 */
export function qrText(text: string, coloured: boolean): QrText {
  const { data, size } = encode(text, { ecc: 'L', boostEcc: true, border: QUIET_MODULES })
  const isLight = (row: number, column: number): boolean => row < size && data[row]?.[column] === false
  const lines = Array.from({ length: Math.ceil(size / 2) }, (_, line) => {
    const cells = Array.from({ length: size }, (_, column) => {
      const [upper, lower] = [isLight(2 * line, column), isLight(2 * line + 1, column)]
      return upper ? (lower ? '█' : '▀') : lower ? '▄' : ' '
    })
    return coloured ? `${COLOURS}${cells.join('')}${NO_COLOURS}` : cells.join('')
  })
  return { lines, columns: size }
}

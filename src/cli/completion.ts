import type { Argument, Command, Option } from 'commander';
import { RozenError } from '../errors.ts';

/** One place of the command tree, in the words that a completion script needs. */
interface Node {
  /** Words that lead here: `key add`; empty for the program. */
  path: string;
  words: { word: string; about: string }[];
  options: { flags: string[]; about: string; takes: Value | null; repeat: boolean }[];
  arguments: { takes: Value; many: boolean; name: string }[];
}

type Value = { kind: 'words'; words: readonly string[] } | { kind: 'file' } | { kind: 'directory' } | { kind: 'any' };

/** What a value is, told by its metavariable: `<file>`, `<dir>`. */
function valueKind(choices: readonly string[] | undefined, metavariable: string): Value {
  if (choices !== undefined && choices.length > 0) return { kind: 'words', words: choices };
  if (/file|path/.test(metavariable) && !metavariable.includes(':')) return { kind: 'file' };
  if (/dir|repo/.test(metavariable)) return { kind: 'directory' };
  return { kind: 'any' };
}

function readOption(option: Option): Node['options'][number] {
  const takes =
    option.required || option.optional ? valueKind(option.argChoices, /<(.*)>/.exec(option.flags)?.[1] ?? '') : null;
  return {
    flags: [option.short, option.long].filter((flag) => flag !== undefined),
    about: option.description,
    takes,
    repeat: option.parseArg !== undefined && option.argChoices === undefined,
  };
}

function readArgument(argument: Argument): Node['arguments'][number] {
  return { takes: valueKind(argument.argChoices, argument.name()), many: argument.variadic, name: argument.name() };
}

/** The tree as a flat list, the program first. Every command also knows the options of the program. */
function readTree(program: Command): Node[] {
  const nodes: Node[] = [];
  const global = program.options.map(readOption);
  const help = { flags: ['-h', '--help'], about: 'help for this command', takes: null, repeat: false };
  const visit = (command: Command, path: string): void => {
    // `help key add` is `key add --help`, which is offered.
    const inside = command.commands.filter((inner) => inner.name() !== 'help');
    nodes.push({
      path,
      words: inside.map((inner) => ({ word: inner.name(), about: inner.summary() || inner.description() })),
      options: command === program ? [...global, help] : [...command.options.map(readOption), ...global, help],
      arguments: command.registeredArguments.map(readArgument),
    });
    for (const inner of inside) visit(inner, path === '' ? inner.name() : `${path} ${inner.name()}`);
  };
  visit(program, '');
  return nodes;
}

/** The script for a shell. `program` is the commander tree that parses the real command line. */
export function completionScript(shell: string, program: Command): string {
  const nodes = readTree(program);
  switch (shell) {
    case 'bash':
      return bash(nodes);
    case 'zsh':
      return zsh(nodes);
    case 'fish':
      return fish(nodes);
    default:
      throw new RozenError('usage', `no completion for '${shell}'`, { hint: 'there is one for bash, zsh and fish' });
  }
}

const shellWord = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;

/* ---- bash ------------------------------------------------------------------------------------------------ */

function bashValue(value: Value): string {
  switch (value.kind) {
    case 'words':
      return `COMPREPLY=($(compgen -W ${shellWord(value.words.join(' '))} -- "$cur"))`;
    case 'file':
      return 'compopt -o filenames; COMPREPLY=($(compgen -f -- "$cur"))';
    case 'directory':
      return 'compopt -o filenames; COMPREPLY=($(compgen -d -- "$cur"))';
    case 'any':
      return 'COMPREPLY=()';
  }
}

function bash(nodes: readonly Node[]): string {
  const known = nodes.filter((node) => node.path !== '').map((node) => `${shellWord(node.path)}) path="$try" ;;`);
  const takers = [
    ...new Set(nodes.flatMap((node) => node.options.filter((o) => o.takes !== null).flatMap((o) => o.flags))),
  ];
  const cases = nodes.map((node) => {
    const values = node.options
      .filter((option) => option.takes !== null)
      .map((option) => `        ${option.flags.join('|')}) ${bashValue(option.takes as Value)}; return ;;`);
    const flags = node.options.flatMap((option) => option.flags).filter((flag) => flag.startsWith('--'));
    const first = node.arguments[0];
    const plain =
      node.words.length > 0
        ? bashValue({ kind: 'words', words: node.words.map((w) => w.word) })
        : first === undefined
          ? 'COMPREPLY=()'
          : bashValue(first.takes);
    return `    ${shellWord(node.path)})
      case "$prev" in
${values.join('\n')}
      esac
      if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W ${shellWord(flags.join(' '))} -- "$cur")); else ${plain}; fi
      ;;`;
  });
  return `# bash completion for rozen, made by: rozen completion bash
_rozen() {
  local cur="\${COMP_WORDS[COMP_CWORD]}" prev="\${COMP_WORDS[COMP_CWORD-1]}" path='' try word i
  for ((i = 1; i < COMP_CWORD; i++)); do
    word="\${COMP_WORDS[i]}"
    case "$word" in
      ${takers.join('|')}) ((i++)); continue ;;
      -*) continue ;;
    esac
    try="\${path:+$path }$word"
    case "$try" in
      ${known.join('\n      ')}
    esac
  done
  case "$path" in
${cases.join('\n')}
  esac
}
complete -F _rozen rozen
`;
}

/* ---- zsh ------------------------------------------------------------------------------------------------- */

const zshText = (text: string): string => text.replace(/[[\]:\\]/g, (c) => `\\${c}`).replaceAll("'", "'\\''");

function zshValue(value: Value, name: string): string {
  switch (value.kind) {
    case 'words':
      return `:${name}:(${value.words.join(' ')})`;
    case 'file':
      return `:${name}:_files`;
    case 'directory':
      return `:${name}:_files -/`;
    case 'any':
      return `:${name}: `;
  }
}

function zsh(nodes: readonly Node[]): string {
  const functionName = (path: string): string => `_rozen${path === '' ? '' : `_${path.replaceAll(/[ -]/g, '_')}`}`;
  const functions = nodes.map((node) => {
    const specs = node.options.flatMap((option) =>
      option.flags.map((flag) => {
        const exclude = option.repeat ? '*' : option.flags.length > 1 ? `(${option.flags.join(' ')})` : '';
        const value = option.takes === null ? '' : zshValue(option.takes, 'value');
        return `    '${exclude}${flag}[${zshText(option.about)}]${value}'`;
      }),
    );
    if (node.words.length > 0) {
      const described = node.words.map((w) => `    '${zshText(w.word)}:${zshText(w.about)}'`).join('\n');
      const inner = node.words
        .filter((w) => nodes.some((n) => n.path === (node.path === '' ? w.word : `${node.path} ${w.word}`)))
        .map((w) => `        ${w.word}) ${functionName(node.path === '' ? w.word : `${node.path} ${w.word}`)} ;;`)
        .join('\n');
      return `${functionName(node.path)}() {
  local context state state_descr line
  typeset -A opt_args
  local -a commands=(
${described}
  )
  _arguments -C \\
${specs.map((s) => `${s} \\`).join('\n')}
    '1:command:->command' '*::argument:->argument'
  case "$state" in
    command) _describe command commands ;;
    argument)
      case "\${line[1]}" in
${inner}
      esac ;;
  esac
}`;
    }
    const positional = node.arguments.map(
      (argument, i) => `    '${argument.many ? '*' : i + 1}${zshValue(argument.takes, zshText(argument.name))}'`,
    );
    return `${functionName(node.path)}() {
  _arguments \\
${[...specs, ...positional].join(' \\\n')}
}`;
  });
  return `#compdef rozen
# zsh completion for rozen, made by: rozen completion zsh
${functions.join('\n')}
if [ "$funcstack[1]" = "_rozen" ]; then _rozen "$@"; else compdef _rozen rozen; fi
`;
}

/* ---- fish ------------------------------------------------------------------------------------------------ */

function fishOption(option: Node['options'][number], condition: string): string {
  const parts = [`complete -c rozen -n ${shellWord(condition)}`];
  for (const flag of option.flags) parts.push(flag.startsWith('--') ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`);
  if (option.takes !== null) parts.push('-r', ...fishValue(option.takes));
  parts.push(`-d ${shellWord(option.about)}`);
  return parts.join(' ');
}

function fishValue(value: Value): string[] {
  switch (value.kind) {
    case 'words':
      return ['-f', `-a ${shellWord(value.words.join(' '))}`];
    case 'file':
      return ['-F'];
    case 'directory':
      return ['-f', "-a '(__fish_complete_directories)'"];
    case 'any':
      return ['-f'];
  }
}

function fish(nodes: readonly Node[]): string {
  const lines = ['# fish completion for rozen, made by: rozen completion fish', 'complete -c rozen -f'];
  const program = nodes[0] as Node;
  for (const option of program.options) lines.push(fishOption(option, 'true'));
  for (const node of nodes) {
    const words = node.path === '' ? [] : node.path.split(' ');
    const inner = node.words.map((w) => w.word).join(' ');
    const here = words.map((word) => `__fish_seen_subcommand_from ${word}`).join('; and ');
    for (const word of node.words) {
      const condition = `${here === '' ? '' : `${here}; and `}not __fish_seen_subcommand_from ${inner}`;
      lines.push(`complete -c rozen -n ${shellWord(condition)} -a ${shellWord(word.word)} -d ${shellWord(word.about)}`);
    }
    if (node.path === '') continue;
    const own = node.options.filter(
      (option) => !program.options.some((other) => other.flags.join() === option.flags.join()),
    );
    for (const option of own) lines.push(fishOption(option, here));
    const first = node.arguments[0];
    if (first !== undefined && node.words.length === 0 && first.takes.kind !== 'any') {
      lines.push(`complete -c rozen -n ${shellWord(here)} ${fishValue(first.takes).join(' ')}`);
    }
  }
  return `${lines.join('\n')}\n`;
}

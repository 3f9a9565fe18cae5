import { THAW_TIERS } from '../store/object-store.ts';
import type { CommandSpec, OptionSpec } from './command.ts';

/**
 * Every command, its options and its examples: the one source of the parser, of the help and of shell completion.
 * Only data stands here, so that `--help` loads no command.
 */

export const GLOBAL_OPTIONS: readonly OptionSpec[] = [
  {
    flags: '-r, --repository <repo>',
    description: 'the repository: a folder, s3://bucket/prefix, or a name from the configuration',
    env: 'ROZEN_REPOSITORY',
    complete: 'directory',
  },
  {
    flags: '--identity <file>',
    description: 'age identity file that opens it',
    env: 'ROZEN_IDENTITY_FILE',
    complete: 'file',
  },
  {
    flags: '--password-file <file>',
    description: 'file whose first line is the passphrase (or ROZEN_PASSWORD, ROZEN_PASSWORD_COMMAND)',
    complete: 'file',
  },
  { flags: '--config <file>', description: 'configuration file', env: 'ROZEN_CONFIG', complete: 'file' },
  { flags: '--json', description: 'results as JSON on stdout' },
  { flags: '-q, --quiet', description: 'only results, warnings and errors' },
  { flags: '-v, --verbose', description: 'say more' },
  { flags: '--debug', description: 'stack traces with errors' },
];

/** How snapshots are named, for the help of each command that takes one. */
/** For `backup` and `set`. */
const WORM_POLICY: readonly OptionSpec[] = [
  {
    flags: '--on-change <policy>',
    description: 'worm: what to do about a file whose content changed',
    choices: ['warn', 'accept', 'restore'],
  },
  { flags: '--on-delete <policy>', description: 'worm: about a file that is gone', choices: ['record', 'restore'] },
  { flags: '--accept-new <answer>', description: 'worm: no freezes the set', choices: ['yes', 'no'] },
];

const NAMING = `A snapshot is named by the first characters of its id, by latest, SET@latest or SET@TIME (the newest one
not after TIME, such as photos@2026-11-23 or 'photos@2026-11-23 18:30'). SNAPSHOT:PATH names a place in one.`;

const FILTERS: readonly OptionSpec[] = [
  { flags: '--set <name>', description: 'only snapshots of this set' },
  { flags: '--host <name>', description: 'only snapshots of this machine' },
  { flags: '--tag <tag>', description: 'only snapshots with this tag', repeat: true },
];

const CACHE_OPTIONS: readonly OptionSpec[] = [
  {
    flags: '--cache-dir <dir>',
    description: 'where what is fetched from a bucket is kept, sealed (ROZEN_CACHE_DIR)',
    complete: 'directory',
  },
];

const CACHE_SIZE: OptionSpec = { flags: '--cache-size <size>', description: 'most bytes that are kept, default 4G' };

const PRICES: OptionSpec = {
  flags: '--prices <file>',
  description: 'price table; default prices.toml in the configuration folder, or the one that comes with Rozen',
  complete: 'file',
};

/** For `thaw` and `restore --thaw`. */
const THAW_OPTIONS: readonly OptionSpec[] = [
  { flags: '--tier <tier>', description: 'how soon, and for how much; default standard', choices: THAW_TIERS },
  { flags: '--days <days>', description: 'how long the copies stay; default 7' },
  { flags: '-y, --yes', description: 'agree to the price' },
  { flags: '--poll <time>', description: 'how often the store is asked, such as 30s or 10m' },
  PRICES,
];

const SNAPSHOT_ARGUMENT = {
  name: '<snapshot>',
  description: 'id prefix, latest, SET@latest or SET@TIME, maybe with :PATH',
};

export const COMMANDS: readonly CommandSpec[] = [
  {
    name: 'init',
    summary: 'make a repository',
    details: `Prints the fingerprint of the new repository: write it down, it is what proves later that a repository
is yours. With --recipient no passphrase is asked for: only the holders of these identities can read.`,
    arguments: [
      { name: '[repo]', description: 'folder or s3://bucket/prefix (or -r, ROZEN_REPOSITORY)', complete: 'directory' },
    ],
    options: [
      {
        flags: '--recipient <key>',
        description: 'age recipient (age1…) that can read; no passphrase then',
        repeat: true,
      },
      { flags: '--post-quantum', description: 'keys that also withstand quantum computers' },
      { flags: '--label <text>', description: 'name of the first key' },
      { flags: '--endpoint <url>', description: 'S3 server other than AWS', env: 'AWS_ENDPOINT_URL' },
      { flags: '--region <region>', description: 'region of the bucket', env: 'AWS_REGION' },
      { flags: '--storage-class <class>', description: 'S3 storage class of data archives, for every writer' },
      { flags: '--object-lock <days>', description: 'nobody can delete what a snapshot needs for so long (S3)' },
    ],
    examples: [
      ['rozen init s3://bucket/rozen', 'in a bucket of AWS, with the credentials that the AWS tools use'],
      ['rozen init s3:https://s3.example.org/bucket/rozen', 'in a bucket of another server'],
      ['rozen init /backup/rozen', 'asks for a passphrase'],
      ['rozen init /backup/rozen --recipient age1…', 'this machine can back up, but not read'],
    ],
    load: () => import('./commands/init.ts'),
  },
  {
    name: 'backup',
    summary: 'back up files and folders into a set',
    details: `--exclude takes names with *, ? and [a-z], wherever they are: *.o; a/b, one below the other; cache/, only folders; ** is
any number of folders. /home/me/x, ~/x and ./x are absolute paths: unlike in .gitignore, /x is not the x of the folder that is
backed up. !x takes in again what an earlier pattern left out, but nothing below a folder that is left out. Later patterns win.`,
    arguments: [
      {
        name: '[path...]',
        description: 'files and folders (or those of the set in the configuration)',
        complete: 'file',
      },
    ],
    options: [
      { flags: '-s, --set <name>', description: 'name of the set' },
      { flags: '--mode <mode>', description: 'kind of the set', choices: ['snapshot', 'worm'] },
      {
        flags: '-e, --exclude <pattern>',
        description: 'leave out *.o, cache/, a/b, !b; with a leading / an absolute path',
        repeat: true,
      },
      {
        flags: '--exclude-file <file>',
        description: 'patterns from a file, one a line',
        repeat: true,
        complete: 'file',
      },
      { flags: '--exclude-caches', description: 'leave out folders marked by a CACHEDIR.TAG' },
      { flags: '-x, --one-file-system', description: 'stay on the file system of each path' },
      { flags: '-n, --dry-run', description: 'only say what would be done' },
      { flags: '-f, --force', description: 'write a snapshot even if nothing changed' },
      { flags: '-w, --wait', description: 'wait for another backup of the set instead of failing' },
      { flags: '--tag <tag>', description: 'tag of the snapshot', repeat: true },
      { flags: '--self-contained', description: 'refer to no archive of another snapshot' },
      { flags: '--codec <codec>', description: 'none, lz4 or zstd[:level]; default zstd:5' },
      { flags: '--archive-size <size>', description: 'goal of an archive, default 1G' },
      ...WORM_POLICY,
      {
        flags: '--no-keep',
        description: 'restore: do not keep the diverged file as NAME.rozen-diverged-TIME',
      },
      { flags: '--rehash <percent>', description: 'worm: read that share of the set again, oldest proof first' },
      { flags: '--storage-class <class>', description: 'S3 storage class of new data archives' },
    ],
    examples: [
      ['rozen backup ~/Documents --set documents', 'back up a folder'],
      ['rozen backup / --set system -x --exclude-caches --exclude /var/tmp', 'a whole system'],
      ['rozen backup ~/Photos --set photos --mode worm', 'contents that never change in silence'],
      ['rozen backup --set documents', 'with paths and options from the configuration'],
    ],
    stopsItself: true,
    survivesClosedOutput: true,
    load: () => import('./commands/backup.ts'),
  },
  {
    name: 'enroll',
    summary: 'give a machine the right to back up without reading',
    details: `Without options: enrolls this machine, so that later backups need no passphrase. --export writes a
writer file for another machine; there, --import takes it in. A writer file is a secret: send it by a safe way, delete it after.`,
    options: [
      { flags: '--name <name>', description: 'name of the machine; default this host name' },
      { flags: '--export <file>', description: 'enroll another machine: write its writer file', complete: 'file' },
      {
        flags: '--import <file>',
        description: 'take in a writer file on the machine it was made for',
        complete: 'file',
      },
    ],
    examples: [
      ['rozen enroll', 'this machine backs up without a passphrase from now on'],
      ['rozen enroll --name nas --export nas.writer', 'on a machine that holds the key'],
      ['rozen -r /backup/rozen enroll --import nas.writer', 'on the other one'],
    ],
    load: () => import('./commands/enroll.ts'),
  },
  {
    name: 'key',
    summary: 'list, add, remove or export keys',
    examples: [
      ['rozen key list', 'what opens this repository'],
      ['rozen key add --label spare', 'one more passphrase'],
    ],
    subcommands: [
      {
        name: 'list',
        summary: 'what opens this repository',
        examples: [['rozen key list', 'needs no passphrase']],
        load: () => import('./commands/key-list.ts'),
      },
      {
        name: 'add',
        summary: 'add a passphrase, or a recipient',
        options: [
          { flags: '--label <text>', description: 'name of the key' },
          { flags: '--new-password-file <file>', description: 'file with the new passphrase', complete: 'file' },
          { flags: '--recipient <key>', description: 'age recipient (age1…) instead of a passphrase: it can read' },
          { flags: '--owner', description: 'that recipient can also change keys and enroll machines' },
        ],
        examples: [
          ['rozen key add --label spare', 'asks for the old and the new passphrase'],
          ['rozen key add --recipient age1… --label safe', 'the holder of that identity can read'],
        ],
        load: () => import('./commands/key-add.ts'),
      },
      {
        name: 'remove',
        summary: 'remove a key; never the last one',
        arguments: [{ name: '<id>', description: 'first characters of the id, from key list' }],
        examples: [['rozen key remove 5f3a', 'that passphrase opens nothing from now on']],
        load: () => import('./commands/key-remove.ts'),
      },
      {
        name: 'export',
        summary: 'write an age identity file',
        details: 'What is written opens the repository without any passphrase: keep it where only you can read it.',
        arguments: [{ name: '[file]', description: 'where to write it (mode 600); default stdout', complete: 'file' }],
        options: [{ flags: '--owner', description: 'with the root key: can also change keys and enroll machines' }],
        examples: [
          ['rozen key export identity.txt', 'then: rozen --identity identity.txt mount DIR'],
          ['rozen key export --owner safe.txt', 'the copy for a safe: everything'],
        ],
        load: () => import('./commands/key-export.ts'),
      },
    ],
  },
  {
    name: 'snapshots',
    summary: 'list the snapshots',
    options: FILTERS,
    examples: [
      ['rozen snapshots', 'all of them'],
      ['rozen snapshots --set photos --json', 'of one set, for a program'],
    ],
    load: () => import('./commands/snapshots.ts'),
  },
  {
    name: 'ls',
    summary: 'list a folder of a snapshot',
    details: NAMING,
    arguments: [{ name: '[snapshot]', description: `${SNAPSHOT_ARGUMENT.description}; default latest` }],
    options: [
      { flags: '-l, --long', description: 'modes, owners, sizes and times' },
      { flags: '-R, --recursive', description: 'all that lies below' },
      { flags: '-d, --directory', description: 'the folder itself, not what it holds' },
    ],
    examples: [
      ['rozen ls latest:/etc', 'names in /etc'],
      ['rozen ls -lR photos@2026-11-23', 'everything, as it was that day'],
    ],
    load: () => import('./commands/ls.ts'),
  },
  {
    name: 'cat',
    summary: 'write files of a snapshot to stdout',
    details: NAMING,
    arguments: [{ name: '<snapshot:path...>', description: 'files' }],
    examples: [['rozen cat latest:/etc/fstab', 'one file']],
    load: () => import('./commands/cat.ts'),
  },
  {
    name: 'find',
    summary: 'find files in the snapshots',
    details: `A pattern is matched against names; with a slash in it, against the end of paths, and ** stands for any
number of folders. Without a pattern everything matches. find's -type, -size, -newer, -name and -iname
are understood too.`,
    arguments: [{ name: '[pattern...]', description: 'names with *, ? and [a-z]' }],
    options: [
      { flags: '--snapshot <snapshot>', description: 'look only there; maybe with :PATH', repeat: true },
      ...FILTERS,
      { flags: '--name <pattern>', description: 'same as a pattern', repeat: true },
      { flags: '-i, --ignore-case', description: 'letters match in either case' },
      {
        flags: '--type <type>',
        description: 'f file, d folder, l symlink, p fifo, s socket, b and c devices',
        repeat: true,
      },
      { flags: '--size <size>', description: '+10M larger, -10M smaller, 10M exactly', repeat: true },
      { flags: '--newer <time>', description: 'changed after TIME, or within e.g. 7d' },
      { flags: '--older <time>', description: 'changed before TIME, or longer ago than e.g. 1y' },
      { flags: '-l, --long', description: 'modes, owners, sizes and times' },
    ],
    examples: [
      ["rozen find '*.jpg' --size +10M --newer 2026-01-01", 'in every snapshot'],
      ['rozen find --snapshot latest report.odt', 'only in the newest'],
    ],
    load: () => import('./commands/find.ts'),
  },
  {
    name: 'diff',
    summary: 'compare two snapshots',
    details: `Prints + added, - removed, M content changed, U only metadata changed, T type changed, R moved.
${NAMING}`,
    arguments: [
      { name: '<older>', description: 'a snapshot, maybe with :PATH' },
      { name: '<newer>', description: 'a snapshot, maybe with :PATH' },
    ],
    options: [
      { flags: '--no-metadata', description: 'leave out what changed only in mode, owner, times or attributes' },
    ],
    examples: [
      ['rozen diff photos@2026-11-01 photos@latest', 'what changed since'],
      ['rozen diff 5f3a:/etc latest:/etc', 'one folder'],
    ],
    load: () => import('./commands/diff.ts'),
  },
  {
    name: 'stats',
    summary: 'sizes, counts, and what deduplication and compression save',
    details: NAMING,
    arguments: [{ name: '[snapshot...]', description: 'default: all of them' }],
    options: FILTERS,
    examples: [
      ['rozen stats', 'the whole repository'],
      ['rozen stats latest', 'one snapshot'],
    ],
    load: () => import('./commands/stats.ts'),
  },
  {
    name: 'set',
    summary: 'show or change the policy of a WORM set',
    details: 'The policy is kept with the set. Options of a single rozen backup hold for that run only.',
    arguments: [{ name: '<set>', description: 'name of the set' }],
    options: WORM_POLICY,
    examples: [
      ['rozen set photos', 'what the set does about changes'],
      ['rozen set photos --on-change restore', 'put archived content back from now on'],
      ['rozen set photos --accept-new no', 'freeze it'],
    ],
    load: () => import('./commands/set.ts'),
  },
  {
    name: 'status',
    summary: 'tell what diverged in a WORM set, and since when',
    details: 'Reads no file: it tells what the last backup saw. Exit code 4 when something has diverged.',
    arguments: [{ name: '<set>', description: 'name of the set' }],
    examples: [['rozen status photos', 'needs no passphrase on the machine that backs it up']],
    load: () => import('./commands/status.ts'),
  },
  {
    name: 'review',
    summary: 'decide about what diverged in a WORM set, case by case',
    details: `Shows both sides of each file: size, time, dimensions and date of images, differences of texts. Nothing changes
before the last answer. --answers reads lines: accept, restore or skip, then a path, kind=edited (decayed, truncated, replaced)
or *; the first line that fits counts. Exit code 4 while cases are open.`,
    arguments: [{ name: '<set>', description: 'name of the set' }],
    options: [
      { flags: '--answers <file>', description: 'decide by a file instead of asking; - is stdin', complete: 'file' },
      { flags: '--no-keep', description: 'restore: do not keep the diverged file as NAME.rozen-diverged-TIME' },
    ],
    examples: [
      ['rozen review photos', 'asks on the terminal'],
      ['rozen review photos --json', 'the cases, for a program'],
      ["printf 'restore kind=decayed\\n' | rozen review photos --answers -", 'undo bit rot'],
    ],
    stopsItself: true,
    load: () => import('./commands/review.ts'),
  },
  {
    name: 'history',
    summary: 'names, places and contents of one file over time',
    details: 'The file is followed by its inode number, through renames and moves of it and of the folders above.',
    arguments: [{ name: '<set:path>', description: 'where it is, or was' }],
    examples: [['rozen history photos:2019/IMG_0001.jpg', 'its whole life']],
    load: () => import('./commands/history.ts'),
  },
  {
    name: 'restore',
    summary: 'put files of a snapshot back',
    details: `What a folder holds goes right into the target; a single file goes there under its name. Owners (as root),
modes, times, attributes, ACLs, hard links and holes come back too; the target gets those of the folder.
What stands in the target: a file with the same size and modification time is kept, any other one is replaced by the
snapshot's, when that is whole. Nothing is ever removed, and nothing is written through a symlink: an entry is left
out and told when a folder is in its way, or when a symlink or file stands where a folder is to be.
After an interruption, run the same command again: it goes on where it was. After a power failure add --verify.
${NAMING}`,
    arguments: [SNAPSHOT_ARGUMENT],
    options: [
      { flags: '-t, --target <dir>', description: 'where to; made if missing', complete: 'directory' },
      { flags: '--verify', description: 'read back and compare what was written, and what is kept' },
      { flags: '-n, --dry-run', description: 'only say what would be done' },
      { flags: '--thaw', description: 'first bring back what is frozen: says what it costs, asks, waits' },
      ...THAW_OPTIONS,
    ],
    examples: [
      ['rozen restore documents@latest --target ~/restored', 'everything'],
      ['rozen restore latest:/etc --target /tmp/etc --verify', 'one folder, checked'],
      ['rozen restore photos@2026-11-23:/2019/a.jpg --target .', 'one file'],
      ['rozen restore photos@latest:/2019 --target . --thaw --tier bulk --yes', 'out of cold storage'],
    ],
    stopsItself: true,
    survivesClosedOutput: true,
    load: () => import('./commands/restore.ts'),
  },
  {
    name: 'thaw',
    summary: 'bring content back from cold storage, so that it can be read',
    details: `Says which packs hold it, when they can be read and what that costs, asks, then asks the store for them and waits.
Whatever ends it, what was asked for comes all the same: run the same command again, nothing is asked for twice. A whole
snapshot of a WORM set includes its old contents and deleted files.
${NAMING}`,
    arguments: [{ name: '[snapshot...]', description: SNAPSHOT_ARGUMENT.description }],
    options: [
      { flags: '--all', description: 'every frozen archive of the repository; needs no key' },
      ...THAW_OPTIONS,
      { flags: '--no-wait', description: 'return when all is asked for' },
      { flags: '-n, --dry-run', description: 'only say what it would take' },
    ],
    examples: [
      ['rozen thaw photos@latest:/2019 --dry-run', 'packs, hours, price'],
      ['rozen thaw photos@latest:/2019 --tier bulk --days 14 --yes', 'and wait until it is there'],
      ['rozen thaw photos@latest:/2019 --no-wait', 'look again with the same command'],
    ],
    stopsItself: true,
    load: () => import('./commands/thaw.ts'),
  },
  {
    name: 'cost',
    summary: 'estimate what a bucket costs, or getting something back from it',
    details: `Of the repository: each month, by storage class; what its uploads took; what would still have to be paid if all were
deleted now; and reading everything back. Of SNAPSHOT:PATH: thawing and fetching it. Prices come from a table that you can edit:
--print-prices prints it.`,
    arguments: [
      { name: '[snapshot]', description: `${SNAPSHOT_ARGUMENT.description}; default: the repository, without a key` },
    ],
    options: [
      { flags: '--days <days>', description: 'how long thawed copies stay; default 7' },
      PRICES,
      { flags: '--print-prices', description: 'print the price table that counts' },
    ],
    examples: [
      ['rozen cost', 'the whole repository'],
      ['rozen cost photos@latest:/2019 --days 14', 'getting one folder back'],
      ['rozen cost --print-prices > ~/.config/rozen/prices.toml', 'a table to edit'],
    ],
    stopsItself: true,
    load: () => import('./commands/cost.ts'),
  },
  {
    name: 'mount',
    summary: 'show every snapshot as a read-only folder',
    details: `Returns when the folder is there; a process in the background serves it until rozen umount.`,
    arguments: [{ name: '<dir>', description: 'an empty folder', complete: 'directory' }],
    options: [
      { flags: '-f, --foreground', description: 'stay until unmounted or Ctrl-C' },
      { flags: '--snapshot <snapshot>', description: 'only this snapshot' },
      { flags: '--allow-other', description: 'let other users in (file modes still count)' },
      { flags: '--uid <number>', description: 'show everything as owned by this user' },
      { flags: '--gid <number>', description: 'show everything as owned by this group' },
      { flags: '--umask <octal>', description: 'take these permissions away, such as 022' },
      { flags: '--driver <driver>', description: 'fuse-native: through libfuse 2', choices: ['kernel', 'fuse-native'] },
      ...CACHE_OPTIONS,
      CACHE_SIZE,
      { flags: '--trace', description: 'one line for each request of the kernel, on stderr or in the log' },
    ],
    examples: [
      ['rozen mount ~/mnt', 'then browse ~/mnt/snapshots, copy with cp'],
      ['rozen --identity key.txt mount /mnt/backup --allow-other', 'for all users'],
      ['rozen mount ~/mnt --uid $(id -u) --umask 077', 'a backup of another machine, as files of yours'],
    ],
    stopsItself: true,
    survivesClosedOutput: true,
    early: async (argv) => {
      if (argv.some((word) => word === '-f' || word === '--foreground')) return;
      (await import('./mount-launch.ts')).launchAhead();
    },
    load: () => import('./commands/mount.ts'),
  },
  {
    name: 'umount',
    summary: 'end a mount',
    arguments: [{ name: '<dir>', description: 'the mount point', complete: 'directory' }],
    options: [{ flags: '-l, --lazy', description: 'take it away though files there are still open' }],
    examples: [['rozen umount ~/mnt', 'says who holds it, if somebody does']],
    load: () => import('./commands/umount.ts'),
  },
  {
    name: 'compact',
    summary: 'merge small archives into large ones',
    details: `Each backup ends with an archive that is not full. Those smaller than half of --archive-size that can be read at once
are merged, in the order in which they were stored; a signed record leads from each of them to the new one, and they are
removed by a run after --grace. Every block and chunk is checked on the way. Backups, mounts and restores may go on; a run that
was stopped is ended by the next one. Needs an owner's key (a passphrase).`,
    options: [
      { flags: '--grace <age>', description: 'merged archives stay for so long, such as 12h, 30d or 0; default 7d' },
      { flags: '--archive-size <size>', description: 'what an archive is to have, default 1G' },
      { flags: '--storage-class <class>', description: 'S3 storage class of what is made' },
      { flags: '-n, --dry-run', description: 'only show what would be merged and removed' },
    ],
    examples: [
      ['rozen compact --dry-run', 'the plan'],
      ['rozen compact --storage-class DEEP_ARCHIVE', 'small archives of many backups become large, cold ones'],
    ],
    stopsItself: true,
    load: () => import('./commands/compact.ts'),
  },
  {
    name: 'repair',
    summary: 'remove what killed backups left, or go on after a loss',
    details: `An upload in parts that was never ended is no object, but takes up room. One that has been silent for
--older-than is taken for dead: a backup that goes on with it later only has to send its parts again.

A repository that lacks the record of a snapshot is refused as rolled back. When no copy of the record is left, an owner
says so with --accept-loss: from then on everybody goes on without that snapshot. What it alone had is lost; the record
is used again if it ever comes back. Without names, all that this machine can tell to be missing or damaged.`,
    arguments: [{ name: '[object...]', description: 'with --accept-loss: the records, as the error names them' }],
    options: [
      { flags: '--older-than <age>', description: 'silent for so long, such as 12h or 3d; default 3d' },
      { flags: '--accept-loss', description: 'declare snapshot records lost (for owners)' },
      { flags: '-y, --yes', description: 'with --accept-loss: do not ask' },
      { flags: '-n, --dry-run', description: 'only list them' },
    ],
    examples: [
      ['rozen repair --dry-run', 'what there is'],
      ['rozen repair --older-than 12h', 'needs no passphrase'],
      ['rozen repair --accept-loss --dry-run', 'which records are missing or damaged'],
    ],
    load: () => import('./commands/repair.ts'),
  },
  {
    name: 'verify',
    summary: 'check that everything is there and as it was written',
    details: `Checks signatures, chains, sizes, Merkle roots, every tree page and every table, and names the files that
damage concerns. Exit code 5 when something is wrong. With --against: 4 when something of the snapshot is missing, or is
another kind of file or has other content; what is only here, was moved or has other metadata is shown, and no more.
${NAMING}`,
    arguments: [{ name: '[snapshot...]', description: 'default: all of them, and every object' }],
    options: [
      { flags: '--read-data', description: 'also open every block and check all content' },
      { flags: '--sample <percent>', description: 'open that share of the blocks, chosen at random' },
      { flags: '--no-key', description: 'only hashes and signatures: asks for no passphrase' },
      {
        flags: '--against <dir>',
        description: 'compare a snapshot (default: latest) with local files, both ways',
        complete: 'directory',
      },
      {
        flags: '--repair <side>',
        description: 'local: put back what decayed; archive: store once more what is damaged there (WORM sets)',
        choices: ['local', 'archive'],
      },
      { flags: '--no-keep', description: 'with --repair local: do not keep the decayed file beside' },
    ],
    examples: [
      ['rozen verify', 'structure and hashes'],
      ['rozen verify --read-data', 'everything, reads the whole repository'],
      ['rozen verify --no-key', 'on a machine that cannot read'],
      ['rozen verify --against ~/Documents documents@latest', 'what differs between the two'],
      ['rozen verify --against ~/Photos --repair archive', 'what is damaged of all that the set ever had'],
    ],
    stopsItself: true,
    survivesClosedOutput: true,
    load: () => import('./commands/verify.ts'),
  },
  {
    name: 'cache',
    summary: 'what is kept of buckets on this machine: look at it, clear it, fill it',
    examples: [
      ['rozen cache stats', 'how much it holds'],
      ['rozen cache warm photos@latest', 'browse it without waiting, or without network'],
    ],
    subcommands: [
      {
        name: 'stats',
        summary: 'how much is cached, and what',
        options: CACHE_OPTIONS,
        examples: [['rozen cache stats --json', 'for a program']],
        load: () => import('./commands/cache-stats.ts'),
      },
      {
        name: 'clear',
        summary: 'throw the cache away; nothing is lost but time',
        details: 'A mount that runs goes on with what it has, and begins a new cache when it is mounted the next time.',
        options: CACHE_OPTIONS,
        examples: [['rozen cache clear', 'for all repositories of this user']],
        load: () => import('./commands/cache-clear.ts'),
      },
      {
        name: 'warm',
        summary: 'fetch what snapshots need to be browsed, before anybody looks',
        details: `Names, attributes and the places of content; with --content also the content below SNAPSHOT:PATH.
${NAMING}`,
        arguments: [{ name: '[snapshot...]', description: `${SNAPSHOT_ARGUMENT.description}; default latest` }],
        options: [{ flags: '--content', description: 'the content of the files too' }, ...CACHE_OPTIONS, CACHE_SIZE],
        examples: [
          ['rozen cache warm', 'walk through the newest snapshot without waiting'],
          ['rozen cache warm --content photos@latest:/2026', 'and look at these on the train'],
        ],
        load: () => import('./commands/cache-warm.ts'),
      },
    ],
  },
  {
    name: 'completion',
    summary: 'print a completion script for a shell',
    arguments: [{ name: '<shell>', description: 'which shell', choices: ['bash', 'zsh', 'fish'] }],
    examples: [
      ['rozen completion bash > ~/.local/share/bash-completion/completions/rozen', 'for bash'],
      ['rozen completion zsh > ~/.zfunc/_rozen', 'for zsh, with ~/.zfunc in fpath'],
      ['rozen completion fish > ~/.config/fish/completions/rozen.fish', 'for fish'],
    ],
  },
];

const TAKES_VALUE = new Set(
  GLOBAL_OPTIONS.filter(({ flags }) => flags.includes('<')).flatMap(({ flags }) => flags.split(/[, ]+/)),
);

/** The first word that is neither an option nor its value. */
export function commandWord(argv: readonly string[]): string | undefined {
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] as string;
    if (!word.startsWith('-')) return word;
    if (TAKES_VALUE.has(word)) i++;
  }
  return undefined;
}

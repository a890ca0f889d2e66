#!/bin/sh
# One sync, for cron: tries again where it failed for a reason that may pass, never overlaps itself, and logs.
#
#     */15 * * * * SYNCLINE_URL=https://sync.example.com SYNCLINE_TOKEN_FILE=/etc/syncline/token /opt/syncline/sync-cron.sh
#     */15 * * * * SYNCLINE_PROJECT=/srv/syncline /opt/syncline/sync-cron.sh agency
#
# cron gives it hardly any environment. What runs here needs DATABASE_URL and the sources' variables: from the project's
# .env, or from a file of NAME=value lines:
#
#     */15 * * * * set -a; . /etc/syncline/environment; SYNCLINE_PROJECT=/srv/syncline /opt/syncline/sync-cron.sh
#
# Arguments are sources. With SYNCLINE_URL a Syncline elsewhere is asked for the run and followed to its end; else a run
# is worked here, in SYNCLINE_PROJECT. Ends with the exit code of the last attempt: 0 done, 1 failed, 2 configuration,
# 3 refused by a guard; 75 where the sync before is still under way.
#
# variable            default           meaning
# SYNCLINE_BIN        syncline          the command
# SYNCLINE_ATTEMPTS   3                 attempts in all; only exit code 1 is tried again
# SYNCLINE_DELAY      30                seconds before the second attempt; they double from there
# SYNCLINE_LOG        standard error    the log file; lines are added
# SYNCLINE_LOCK       in .syncline/     the lock file; .syncline/ is the project's, with SYNCLINE_URL the user's, in $HOME
set -u
: "${SYNCLINE_BIN:=syncline}" "${SYNCLINE_ATTEMPTS:=3}" "${SYNCLINE_DELAY:=30}"
[ -n "${SYNCLINE_LOG:-}" ] && exec 2>>"$SYNCLINE_LOG"
exec 1>&2

say() { printf '%s sync-cron: %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$*"; }

case "$SYNCLINE_ATTEMPTS$SYNCLINE_DELAY" in
    *[!0-9]*) say "SYNCLINE_ATTEMPTS and SYNCLINE_DELAY are numbers"; exit 2 ;;
esac

if [ -z "${SYNCLINE_LOCK:-}" ]; then
    # Not where everybody may write: whoever holds the lock keeps this from ever running.
    place=${SYNCLINE_PROJECT:-.}
    [ -n "${SYNCLINE_URL:-}" ] && place=${HOME:?}
    (cd "$place" && mkdir -p .syncline) || exit 2
    SYNCLINE_LOCK=$place/.syncline/sync-cron.lock
fi

# The lock goes with this process, however it ends.
exec 9>>"$SYNCLINE_LOCK" || exit 2
if ! flock -n 9; then
    say "the sync before is still under way"
    exit 75
fi

sync_once() {
    if [ -n "${SYNCLINE_URL:-}" ]; then
        for source; do set -- "$@" --source "$source"; shift; done
        if [ -n "${SYNCLINE_TOKEN_FILE:-}" ]; then set -- --token-file "$SYNCLINE_TOKEN_FILE" "$@"; fi
        "$SYNCLINE_BIN" trigger "$SYNCLINE_URL" --wait "$@" 9>&-
    else
        cd "${SYNCLINE_PROJECT:-.}" && "$SYNCLINE_BIN" run "$@" 9>&-
    fi
}

attempt=1
while :; do
    say "attempt $attempt of $SYNCLINE_ATTEMPTS"
    sync_once "$@"
    code=$?
    [ "$code" -eq 0 ] && { say "done"; exit 0; }
    if [ "$code" -ne 1 ] || [ "$attempt" -ge "$SYNCLINE_ATTEMPTS" ]; then
        say "gave up with exit code $code"
        exit "$code"
    fi
    say "exit code $code; again in $SYNCLINE_DELAY s"
    sleep "$SYNCLINE_DELAY"
    SYNCLINE_DELAY=$((SYNCLINE_DELAY * 2))
    attempt=$((attempt + 1))
done

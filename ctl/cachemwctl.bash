# SPDX-License-Identifier: Apache-2.0
# bash completion for cachemwctl
# shellcheck shell=bash

_cachemwctl()
{
    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
    local common="--store --load --modules --cache-dir --no-color --verbose --help"
    local options

    COMPREPLY=()
    if [ "$COMP_CWORD" = 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W "check bench get ls stat rm clear
            sweep verify --help --version" -- "$current")
        return 0
    fi
    case $before in
    --load)
        mapfile -t COMPREPLY < <(compgen -f -X '!*.so' -- "$current"
            compgen -d -- "$current")
        return 0
        ;;
    --modules | --cache-dir)
        mapfile -t COMPREPLY < <(compgen -d -- "$current")
        return 0
        ;;
    --user)
        mapfile -t COMPREPLY < <(compgen -u -- "$current")
        return 0
        ;;
    --ops)
        mapfile -t COMPREPLY < <(compgen -W "set get delete set,get
            set,get,delete" -- "$current")
        return 0
        ;;
    esac
    case ${COMP_WORDS[1]} in
    check) options="--core --test --list --repeat --seconds --force" ;;
    bench) options="--vs --ops --size --keys --zipf --threads --processes
        --warmup --seconds --force --json" ;;
    get) options="--host --include --header --timeout --user" ;;
    ls) options="--host --long --all --json --timeout --user" ;;
    stat) options="--host --json --timeout --user" ;;
    rm) options="--host --match --timeout --user" ;;
    clear) options="--yes --timeout --user" ;;
    sweep) options="--timeout --user" ;;
    verify) options="--remove --json --timeout --user" ;;
    *) return 0 ;;
    esac
    if [[ $current == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options $common" -- "$current")
    elif [[ $current != *=* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "memory file sqlite redis http
            multitier" -- "$current")
    fi
    return 0
}

complete -o default -F _cachemwctl cachemwctl

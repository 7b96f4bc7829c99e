_oss_run() {
    # Readline splits words at = and :, where the word to complete is empty. The program joins them again.
    local words=("${COMP_WORDS[@]:0:COMP_CWORD}")
    [[ ${COMP_WORDS[COMP_CWORD]} == [=:@] ]] && words+=("${COMP_WORDS[COMP_CWORD]}")
    mapfile -t COMPREPLY < <(VARIABLE=bash COMPLETER -- "${words[@]}" "$2" 2>/dev/null)
    # A section, a key and a folder are not the whole word.
    [[ ${COMPREPLY[0]-} == *[./=] ]] && compopt -o nospace
}
complete -o bashdefault -o default -o nosort -F _oss_run oss-run

#compdef oss-run
_oss_run() {
    local -a found part whole
    found=("${(@f)$(VARIABLE=zsh COMPLETER -- "${(@Q)words[1,CURRENT-1]}" "$PREFIX" 2>/dev/null)}")
    local candidate
    for candidate in $found; do
        # A section, a key and a folder are not the whole word.
        if [[ ${candidate%%:*} == *[./=] ]]; then part+=("$candidate"); else whole+=("$candidate"); fi
    done
    (( $#part )) && _describe -V values part -S ''
    (( $#whole )) && _describe -V values whole
}
if [[ $funcstack[1] == _oss-run ]]; then
    _oss_run "$@"
else
    compdef _oss_run oss-run
fi

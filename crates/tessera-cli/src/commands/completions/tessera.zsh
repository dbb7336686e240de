#compdef tessera
# Completions of tessera for zsh: source <(tessera completions zsh)
_tessera() {
    local found=("${(@f)$(_CLAP_IFS=$'\n' _CLAP_COMPLETE_INDEX=$((CURRENT - 1)) VARIABLE=zsh PROGRAM -- "${words[@]}" 2>/dev/null)}")
    # A key and a folder go on: there is no space behind them.
    local -a open whole
    local one
    for one in $found; do
        case ${one%%:*} in
            *[=/]) open+=("$one") ;;
            *) whole+=("$one") ;;
        esac
    done
    (( $#open )) && _describe -V 'values' open -S ''
    (( $#whole )) && _describe -V 'values' whole
}
compdef _tessera tessera

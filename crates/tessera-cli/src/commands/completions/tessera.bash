# Completions of tessera for bash 4.4 or newer: source <(tessera completions bash)
_tessera() {
    # Bash breaks words at = and @, which keys and configurations have in them: the line is broken at spaces here.
    local line=${COMP_LINE:0:COMP_POINT} words
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    local word=${words[-1]} separator=$'\013' found
    found=$(_CLAP_IFS=$separator _CLAP_COMPLETE_INDEX=$((${#words[@]} - 1)) _CLAP_COMPLETE_SPACE=false \
        VARIABLE=bash PROGRAM -- "${words[@]}") || return
    IFS=$separator read -ra COMPREPLY -d '' <<<"$found" || true
    # What is put in takes the place of what is behind the last break.
    local behind=$2
    [[ $behind == [=@:] ]] && behind=
    local before=${word%"$behind"} number
    for number in "${!COMPREPLY[@]}"; do
        COMPREPLY[number]=${COMPREPLY[number]%$'\n'}
        COMPREPLY[number]=${COMPREPLY[number]#"$before"}
    done
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=/] ]] && compopt -o nospace
}
complete -o bashdefault -o nosort -F _tessera tessera

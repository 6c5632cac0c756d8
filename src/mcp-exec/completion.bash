# Completion of mcp-exec for bash: the program itself knows what fits.

_mcp_exec() {
    local words=() word glue=0 current candidate prefix

    # Readline takes = and : for ends of words; mcp-exec doesn't.
    for word in "${COMP_WORDS[@]:1:COMP_CWORD}"; do
        if ((${#words[@]})) && [[ $word == [=:]* || $glue == 1 ]]; then
            words[-1]+=$word
        else
            words+=("$word")
        fi
        [[ $word == *[=:] ]] && glue=1 || glue=0
    done
    # Readline puts back the quote that the last one begins with.
    words=("${words[@]#[\"\']}")
    ((COMP_CWORD)) || return
    current=${words[-1]}
    # Of a word with = only what stands behind it is replaced.
    prefix=
    [[ $current == *[=:]* && $COMP_WORDBREAKS == *=* ]] && prefix=${current%"${current##*[=:]}"}

    COMPREPLY=()
    while IFS= read -r candidate; do
        candidate=${candidate%%$'\t'*}
        COMPREPLY+=("${candidate#"$prefix"}")
    done < <("${COMP_WORDS[0]}" __complete "${words[@]}" 2>/dev/null)
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace
}

complete -o default -F _mcp_exec mcp-exec

#compdef mcp-exec
# Completion of mcp-exec for zsh: the program itself knows what fits.

local line
local -a plain open meanings_plain meanings_open

while IFS= read -r line; do
    if [[ ${line%%$'\t'*} == *= ]]; then
        open+=("${line%%$'\t'*}")
        meanings_open+=("${line%%$'\t'*}  ${line#*$'\t'}")
    else
        plain+=("${line%%$'\t'*}")
        meanings_plain+=("${line%%$'\t'*}  ${line#*$'\t'}")
    fi
done < <("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)

(( ${#plain} )) && compadd -l -d meanings_plain -- "${plain[@]}"
(( ${#open} )) && compadd -l -S '' -d meanings_open -- "${open[@]}"
(( ${#plain} + ${#open} )) || _files

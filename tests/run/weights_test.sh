#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Weights that are not what they seem: changed while a run uses them, cut off, replaced, not finite.
# usage: weights_test.sh PROGRAM SOURCE_DIR
source "$(dirname "$0")/../checks.sh"

# A model's file of our own, and where its tensors lie in it.
fresh_model() {
  rm -rf "$work/model"
  cp -r "$model" "$work/model"
  chmod -R u+w "$work/model"
  weights=$work/model/model.safetensors
}
header_bytes() { od -An -t u8 -N 8 "$1" | tr -d ' '; }
header() { tail -c +9 "$1" | head -c "$(header_bytes "$1")"; }
offset_of() { # tensor: its first byte in the file
  local at
  at=$(header "$weights" | grep -o "\"$1\":{[^}]*}" | sed 's/.*"data_offsets":\[\([0-9]*\),.*/\1/')
  echo $((8 + $(header_bytes "$weights") + at))
}
put() { # file, offset, bytes as printf writes them
  printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}
until_answered() { # process: till the first answer is there
  until [ -s "$work/out.jsonl" ]; do
    sleep 0.02
    kill -0 "$1" 2>/dev/null || break
  done
}

head -c 3000 "$source_dir/data/demo.jsonl" >"$work/text"
printf '{"id": "%d", "context_file": "text", "queries": ["What is hidden?"]}\n' $(seq 40) >"$work/in.jsonl"
base=(run --model "$work/model" --input "$work/in.jsonl" --block-size 128 --max-new-tokens 4)
fresh_model
on 2 "${base[@]}" --output "$work/expected.jsonl"
check "a batch is answered" [ $code -eq 0 -a "$(wc -l <"$work/expected.jsonl")" -eq 40 ]

# change, what the run must do: each after the first answer
start() { # ranks, further arguments
  local ranks=$1
  shift
  rm -rf "$work"/out.jsonl*
  timeout 300 mpirun --oversubscribe -n "$ranks" "$program" "${base[@]}" "$@" --output "$work/out.jsonl" >"$work/out" 2>"$work/log" &
  job=$!
  until_answered $job
}
answers_are_right() { cmp -s <(stable "$work/out.jsonl") <(stable "$work/expected.jsonl" | head -n "$(wc -l <"$work/out.jsonl")"); }
ends_with_74() { # what
  wait $job
  code=$?
  check "$1 ends with 74" [ $code -eq 74 ]
  check "which names the file, once" [ "$(grep -c "model.safetensors has changed" "$work/log")" -eq 1 ]
  check "and keeps right answers alone" answers_are_right
  check "of which some are missing" [ "$(wc -l <"$work/out.jsonl")" -lt 40 ]
}
goes_on() { # what
  wait $job
  code=$?
  check "$1 does no harm" [ $code -eq 0 -a "$(wc -l <"$work/out.jsonl")" -eq 40 ]
  check "to any answer" answers_are_right
}

start 2
put "$weights" "$(offset_of model.layers.3.mlp.down_proj.weight)" 'XYZUVWXYZ'
ends_with_74 "a model written in place"
fresh_model
on 2 "${base[@]}" --output "$work/out.jsonl"
check "the right model goes on from there" [ $code -eq 0 ]
check "to the same answers" same "$work/expected.jsonl" "$work/out.jsonl"

start 2
times=$(stat -c %y "$weights")
put "$weights" "$(offset_of model.layers.3.mlp.down_proj.weight)" 'XYZUVWXYZ'
touch -d "$times" "$weights"
ends_with_74 "a model written in place and given its old time"

fresh_model
start 2
truncate -s 100000 "$weights"
ends_with_74 "a model that is cut off"

fresh_model
cp "$weights" "$work/new.safetensors"
put "$work/new.safetensors" "$(offset_of model.layers.3.mlp.down_proj.weight)" 'XYZUVWXYZ'
start 2
mv "$work/new.safetensors" "$weights"
goes_on "a file that another is renamed to"

fresh_model
start 2
mv "$work/model" "$work/old-model"
goes_on "a folder that is renamed"
rm -rf "$work/old-model"

# No block of other weights stays under the first ones' name.
fresh_model
saved=$work/saved
start 2 --checkpoint-dir "$saved"
put "$weights" "$(offset_of model.layers.3.mlp.down_proj.weight)" 'XYZUVWXYZ'
ends_with_74 "a model written in place while blocks are saved"
fresh_model
rm -rf "$work"/out.jsonl*
on 2 "${base[@]}" --checkpoint-dir "$saved" --output "$work/out.jsonl"
check "the blocks that were saved are right" [ $code -eq 0 ]
check "and give the same answers" same "$work/expected.jsonl" "$work/out.jsonl"

# --- values that are not finite -------------------------------------------------------------------
nan='\xc0\x7f' infinity='\x80\x7f' huge='\x00\x7f'
few=(run --model "$work/model" --input "$work/few.jsonl" --max-new-tokens 4 --logprobs 2 --output "$work/few.out")
cat >"$work/few.jsonl" <<'END'
{"id": "d1", "context_tokens": [10, 11, 12, 13], "queries": [{"tokens": [20, 21]}]}
{"id": "d2", "context_tokens": [10, 11, 1500, 13], "queries": [{"tokens": [20, 21]}]}
{"id": "d3", "context_tokens": [10, 11, 12, 14], "queries": [{"tokens": [20, 21]}, {"tokens": [1500]}]}
{"id": "d4", "context_tokens": [10, 11, 12, 15], "queries": [{"tokens": [20, 21]}]}
END
ask_few() { # ranks
  rm -f "$work"/few.out*
  on "$1" "${few[@]}"
}
no_bug() { ! grep -Eq "bug|null" "$work/log" "$work/few.out"; }

for value in $nan $infinity; do
  fresh_model
  put "$weights" $(($(offset_of model.layers.2.self_attn.o_proj.weight) + 2 * (384 * 5 + 7))) "$value"
  ask_few 2
  check "a weight that is not finite is bad data" [ $code -eq 65 -a ! -s "$work/few.out" ]
  check "and named" says "model.safetensors: tensor 'model.layers.2.self_attn.o_proj.weight' is not finite (NaN or infinite) at \[5, 7\]"
done
fresh_model
put "$weights" $(($(offset_of model.norm.weight) + 2 * 100)) "$nan"
ask_few 1
check "so is one of a vector" says "tensor 'model.norm.weight' is not finite (NaN or infinite) at \[100\]"
fresh_model
put "$weights" $(($(offset_of model.embed_tokens.weight) + 2 * (384 * 1500 + 3))) "$nan"
ask_few 2
check "a tied head needs every row of the embedding" [ $code -eq 65 -a ! -s "$work/few.out" ]
check "so its row is named" says "tensor 'model.embed_tokens.weight' is not finite (NaN or infinite) at \[1500, 3\]"

# The same embedding with a head of its own: its bytes as a second shard.
untied_model() { # what the config says of tied embeddings
  fresh_model
  local begin end
  begin=$(offset_of model.embed_tokens.weight)
  local head='{"lm_head.weight":{"dtype":"BF16","shape":[2304,384],"data_offsets":[0,1769472]}}'
  {
    printf "\\x$(printf %02x ${#head})\\0\\0\\0\\0\\0\\0\\0%s" "$head"
    tail -c "+$((begin + 1))" "$weights" | head -c 1769472
  } >"$work/model/b.safetensors"
  {
    printf '{"weight_map":{"lm_head.weight":"b.safetensors"'
    header "$weights" | grep -o '"model[^"]*"' | sed 's/.*/,&:"a.safetensors"/'
    printf '}}'
  } >"$work/model/model.safetensors.index.json"
  mv "$weights" "$work/model/a.safetensors"
  weights=$work/model/a.safetensors
  sed -i "s/\"tie_word_embeddings\": true/\"tie_word_embeddings\": $1/" "$work/model/config.json"
}
answered() { grep -c '"answer"' "$work/few.out"; }
errors_of() { grep -c "\"id\":\"$1\".*\"error\"" "$work/few.out"; }

fresh_model
ask_few 1
tied=$(stable "$work/few.out")
untied_model true
ask_few 2
check "a head that equals the tied embedding is silent" [ $code -eq 0 -a "$(grep -c "lm_head" "$work/log")" -eq 0 ]
check "and changes nothing" [ "$(stable "$work/few.out")" = "$tied" ]
put "$work/model/b.safetensors" 500000 'XYZUVWXYZ'
ask_few 2
check "one that differs is said once" [ $code -eq 0 -a "$(grep -c "lm_head.weight that differs from the embedding" "$work/log")" -eq 1 ]
differs=$(stable "$work/few.out")
check "and counts" [ "$differs" != "$tied" ]
sed -i 's/"tie_word_embeddings": true/"tie_word_embeddings": false/' "$work/model/config.json"
ask_few 1
check "as if the config said so" [ "$(stable "$work/few.out")" = "$differs" ]

untied_model false
put "$weights" $(($(offset_of model.embed_tokens.weight) + 2 * (384 * 1500 + 3))) "$nan"
for ranks in 1 3; do
  ask_few $ranks
  check "a row of the embedding fails the documents with its token ($ranks)" [ $code -eq 65 -a "$(errors_of d2)" -eq 1 -a "$(errors_of d3)" -eq 1 ]
  check "and no other" [ "$(answered)" -eq 2 ]
  check "naming tensor and index" says "token 2 is 1500.*tensor 'model.embed_tokens.weight' is not finite (NaN or infinite) at \[1500, 3\]"
  check "no bug, no null" no_bug
done

# Values that overflow: the embedding of one token is finite, and its squares are not.
untied_model false
put "$weights" $(($(offset_of model.embed_tokens.weight) + 2 * (384 * 1500 + 3))) "$huge"
for ranks in 1 3; do
  ask_few $ranks
  check "an overflow fails its document ($ranks)" [ $code -eq 65 -a "$(errors_of d2)" -eq 1 -a "$(errors_of d3)" -eq 1 ]
  check "others and other queries are answered" [ "$(answered)" -eq 3 ]
  check "the context is named" says "document 'd2': the embedding is not finite or too large for the first norm, at token 2 of the context"
  check "or the query" says "document 'd3': query '1': the embedding is not finite or too large for the first norm, at token 0 of the query"
  check "no bug, no null" no_bug
done
fresh_model
for i in $(seq 0 15); do # a value each in as many rows
  put "$weights" $(($(offset_of model.layers.4.mlp.down_proj.weight) + 2 * 768 * i)) "$huge$huge$huge$huge$huge$huge$huge$huge"
done
ask_few 2
check "an overflow in a layer is every document's" [ $code -eq 65 -a "$(answered)" -eq 0 -a "$(wc -l <"$work/few.out")" -eq 4 ]
check "and the layer is named" says "values overflow in layer 4 of 8, counted from 0, at token"
check "no bug, no null" no_bug

# --- what the files hold against the config ---------------------------------------------------------
fresh_model
sed -i 's/"num_hidden_layers": 8/"num_hidden_layers": 6/' "$work/model/config.json"
ask_few 2
check "layers that the config leaves out are said once" [ "$(grep -c "the weights hold 8 layers and config.json asks for 6" "$work/log")" -eq 1 ]

for name in config.json model.safetensors tokenizer.json; do
  fresh_model
  printf 'version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 4997750760\n' >"$work/model/$name"
  ask_few 1
  check "a Git LFS pointer in place of $name is named" says "$name is a Git LFS pointer, not the file itself: run 'git lfs pull'"
  check "as bad data" [ $code -eq 65 ]
done
exit $failed

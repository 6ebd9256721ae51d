#!/usr/bin/env bash
# All four jobs on both embedded review sets, and one table of accuracies.
#
#   bash demo/run.sh [FOLDER] [--epochs N] [--lr X] [--lora_epochs N] [--lora_lr X]
#
# FOLDER (default: demo-run, in the current one) takes everything that is written. Settings left
# out are those that suit the small model. To run in the environment that set-up has made:
# bash setup.sh bash demo/run.sh
set -euo pipefail

demo=$(cd "$(dirname "$0")" && pwd)
folder=demo-run epochs=6 lr=5e-4 lora_epochs=6 lora_lr=2e-3
case ${1-} in -* | "") ;; *) folder=$1; shift ;; esac
while [ $# -gt 0 ]; do
    [ $# -gt 1 ] || { echo "run.sh: $1 needs a value" >&2; exit 2; }
    case $1 in
        --epochs) epochs=$2 ;;
        --lr) lr=$2 ;;
        --lora_epochs) lora_epochs=$2 ;;
        --lora_lr) lora_lr=$2 ;;
        *) echo "run.sh: unknown option $1 (see the first lines of $0)" >&2; exit 2 ;;
    esac
    shift 2
done
mkdir -p "$folder"
cd "$folder"

run() {  # run SET OPTION KIND [SETTING ...]
    local set=$1 option=$2 kind=$3
    shift 3
    printf '\n--- %s on %s\n' "$option" "$set"
    python "$demo/../run_llama.py" --option "$option" \
        --pretrained-model-path "$demo/stories.pt" --batch_size 8 \
        --train "$demo/$set-train.txt" --dev "$demo/$set-dev.txt" --test "$demo/$set-test.txt" \
        --label-names "$demo/$set-label-mapping.json" \
        --dev_out "$set-dev-$kind-output.txt" --test_out "$set-test-$kind-output.txt" "$@"
}

python "$demo/../run_llama.py" --option generate --pretrained-model-path "$demo/stories.pt"
for set in reviews5 reviews2; do
    run $set prompt prompting
    run $set finetune finetuning --epochs "$epochs" --lr "$lr"
    run $set lora lora --epochs "$lora_epochs" --lr "$lora_lr" --lora_rank 8 --lora_alpha 8
done

python - "$demo" <<'END'
import sys

print("\nAccuracy     reviews5 dev    test   reviews2 dev    test")
for name, kind in (("zero-shot", "prompting"), ("fine-tuning", "finetuning"), ("LoRA", "lora")):
    row = []
    for data in ("reviews5", "reviews2"):
        for split in ("dev", "test"):
            with open(f"{sys.argv[1]}/{data}-{split}.txt", encoding="utf-8") as file:
                labels = [line.split(" ||| ")[0] for line in file]
            with open(f"{data}-{split}-{kind}-output.txt", encoding="utf-8") as file:
                predictions = [line.split(" ||| ")[0] for line in file]
            hits = sum(a == b for a, b in zip(labels, predictions, strict=True))
            row.append(hits / len(labels))
    print(f"{name:12} {row[0]:12.3f} {row[1]:7.3f} {row[2]:14.3f} {row[3]:7.3f}")
END

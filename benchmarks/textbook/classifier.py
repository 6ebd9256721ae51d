"""Textbook solution: the two classifiers."""

import torch
import torch.nn.functional as F
from torch import nn

from llama import load_pretrained


class LlamaZeroShotClassifier(nn.Module):
    def __init__(self, config, tokenizer, label_names):
        super().__init__()
        self.num_labels = config.num_labels
        self.llama = load_pretrained(config.pretrained_model_path)
        self.llama.requires_grad_(False)
        assert len(label_names) == self.num_labels
        self.tokenizer = tokenizer
        self.label_name_ids = [tokenizer.encode(name, bos=False, eos=False) for name in label_names]

    def forward(self, input_ids):
        logits, _ = self.llama(input_ids)
        log_probs = F.log_softmax(logits, dim=-1)[:, -1, :]
        scores = [log_probs[:, ids].sum(dim=-1) for ids in self.label_name_ids]
        return torch.stack(scores, dim=1)


class LlamaEmbeddingClassifier(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.num_labels = config.num_labels
        self.llama = load_pretrained(config.pretrained_model_path)
        for p in self.llama.parameters():
            p.requires_grad = {"pretrain": False, "finetune": True}.get(
                config.option, p.requires_grad)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier_head = nn.Linear(self.llama.config.dim, self.num_labels)

    def forward(self, input_ids):
        _, hidden = self.llama(input_ids)
        last = hidden[:, -1, :].contiguous()  # otherwise CUDA's dropout draws another mask
        logits = self.classifier_head(self.dropout(last))
        return F.log_softmax(logits, dim=-1)

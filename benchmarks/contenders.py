"""What `throughput.py` sets side by side: each contender runs in a process of its own."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from xcflow.catalogue.dataset import Dataset
from xcflow.catalogue.text_reader import TextReader
from xcflow.config import EncoderConfig, ModuleOneConfig
from xcflow.encoders.base import Encoder
from xcflow.encoders.build import initial_encoder
from xcflow.encoders.transformer import pretrained_transformer
from xcflow.labels.auxiliary import AuxiliaryVectors
from xcflow.negatives.batches import Curriculum, DocumentMemory, document_order
from xcflow.negatives.candidates import Candidates
from xcflow.pretrained import model_folder
from xcflow.ragged import Ragged
from xcflow.training.data import Splits
from xcflow.training.losses import hardest_triplet, negatives_only
from xcflow.training.module_one import ModuleOne, draw_one

REFERENCE_TOKENS = 32  # the longest text that the reference papers' encoders read
SEED = 1


@dataclass(frozen=True)
class Job:
    """What a contender works on.

    Attributes:
        dataset: Folder of a validated catalogue.
        clusters: Folder with the auxiliary vector of each label.
        layers: Layers of MiniLM; 0 for a bag of embeddings.
        batch_size: Documents in a training step.
        texts: Training documents that are encoded; the catalogue has at least so many.
        threads: Threads of a contender.
    """

    dataset: Path
    clusters: Path
    layers: int
    batch_size: int
    texts: int
    threads: int

    @property
    def encoder(self) -> EncoderConfig:
        """The product's encoder of that size, in float32 as the peers'."""
        if not self.layers:
            return EncoderConfig(kind="bag_of_embeddings")
        return EncoderConfig(kind="transformer", layers=self.layers, bf16="off")

    def encoded_texts(self) -> list[str]:
        """The texts to encode, the same for all."""
        return list(Dataset.open(self.dataset).train.texts.take(self.encoded_rows()))

    def encoded_rows(self) -> NDArray[np.int64]:
        """Their rows among the training documents."""
        documents = len(Dataset.open(self.dataset).train)
        return np.random.default_rng(SEED).permutation(documents)[: self.texts]


class Pace:
    """Called after each unit of work; lets the next ones run when a window is asked for."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._left = 0
        self.notes: dict[str, Any] = {}

    def __call__(self) -> None:
        self._left -= 1
        if self._left > 0:
            return
        if self._left == 0:
            self._report()
        self._left = self._pipe.recv()
        if self._left == 0:
            raise SystemExit
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def _report(self) -> None:
        window = {
            "seconds": time.perf_counter() - self._wall,
            "cpu_seconds": time.process_time() - self._cpu,
            "peak_memory_mb": peak_memory_mb(),
        }
        self._pipe.send(window | self.notes)


def peak_memory_mb() -> int:
    """The largest resident memory of this process; Linux alone tells it apart from its parent's."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM"))


def run(name: str, job: Job, pipe: Connection) -> None:
    """A contender's process."""
    torch.set_num_threads(job.threads)
    torch.manual_seed(SEED)
    CONTENDERS[name](job, Pace(pipe))


def train_xcflow(job: Job, pace: Pace) -> None:
    """Module I as the step `train_encoder` runs it, at the default settings."""
    dataset = Dataset.open(job.dataset)
    splits = Splits.of(dataset)
    encoder = initial_encoder(job.encoder, dataset)
    config = ModuleOneConfig(batch_size=job.batch_size)
    row_of_label = np.load(job.clusters / "row_of_label.npy")
    auxiliary = AuxiliaryVectors(
        row_of_label,
        int(row_of_label.max()) + 1,
        encoder.parts,
        on_unit=True,
        norm=config.auxiliary_norm,
        generator=torch.Generator().manual_seed(SEED),
    )
    module = ModuleOne(encoder, auxiliary, splits, dataset.labels.tokens, config, SEED)
    pace.notes |= cost_of_order(dataset, splits, config)
    pace.notes["epoch_documents"] = len(splits.fit)
    order = module.order(0)
    for step in count():
        batches = whole_batches(order, job.batch_size)
        rng = np.random.default_rng([SEED, step])
        torch.manual_seed(int(rng.integers(2**62)))
        module.step(batches[step % len(batches)], 0.5, rng)
        pace()


def whole_batches(order: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """[steps, size] of an order, without what is left over."""
    steps = len(order) // size
    return order[: steps * size].reshape(steps, size)


def cost_of_order(dataset: Dataset, splits: Splits, config: ModuleOneConfig) -> dict[str, float]:
    """Time to make the clustered order of an epoch, at its dearest: the smallest clusters."""
    bag = initial_encoder(EncoderConfig(), dataset)
    documents = len(splits.fit)
    memory = DocumentMemory(documents, bag.dim, config.memory_width, SEED)
    memory.put(np.arange(documents), bag.encode(splits.fit.tokens()))
    curriculum = Curriculum(0, config.cluster_size, 0)
    wall, cpu = time.perf_counter(), time.process_time()
    document_order(1, memory.vectors, documents, curriculum, SEED)
    return {
        "order_seconds": time.perf_counter() - wall,
        "order_cpu_seconds": time.process_time() - cpu,
    }


def train_sentence_transformers(job: Job, pace: Pace) -> None:
    """Their trainer at its default settings, with the loss that they name for such pairs."""
    import datasets
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.losses import MultipleNegativesRankingLoss
    from transformers import TrainerCallback

    class Paced(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            pace()

    dataset = Dataset.open(job.dataset)
    rows = dataset.fit_rows
    drawn = draw_one(dataset.train.labels.take(rows), np.random.default_rng(SEED))
    pairs = {
        "anchor": list(dataset.train.texts.take(rows)),
        "positive": list(dataset.labels.texts.take(drawn)),
    }
    model: SentenceTransformer = peer_model(job)
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=job.batch_size,
            num_train_epochs=1000,
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        SentenceTransformerTrainer(
            model=model,
            args=arguments,
            train_dataset=datasets.Dataset.from_dict(pairs),
            loss=MultipleNegativesRankingLoss(model),
            callbacks=[Paced()],
        ).train()


def train_plainly(job: Job, pace: Pace) -> NoReturn:
    """The reference papers' step in plain PyTorch.

    Padded batches trimmed to their longest text, autograd through whole tables, dense AdamW on all
    of them, a margin loss on the ten hardest negatives of each document, float32.
    """
    dataset = Dataset.open(job.dataset)
    rows = dataset.fit_rows
    row_of_label = torch.from_numpy(np.load(job.clusters / "row_of_label.npy").astype(np.int64))
    encoder = PaddedBag(job, dataset) if not job.layers else PaddedTransformer(job)
    auxiliary = nn.Embedding(int(row_of_label.max()) + 1, encoder.dim)
    parameters = [*encoder.parameters(), *auxiliary.parameters()]
    optimizer = torch.optim.AdamW(parameters, 2e-4, eps=1e-6, weight_decay=0.01)
    document_tokens = encoder.tokens(list(dataset.train.texts.take(rows)))
    label_tokens = encoder.tokens(dataset.labels.texts.to_list())
    nobody = np.full(job.batch_size, -1)
    rng = np.random.default_rng(SEED)
    while True:
        for batch in whole_batches(rng.permutation(len(rows)), job.batch_size):
            truth = dataset.train.labels.take(rows[batch])
            drawn = draw_one(truth, rng)
            candidates = Candidates.shared(drawn, truth, nobody)
            documents = nn.functional.normalize(encoder(document_tokens.take(batch)))
            labels = nn.functional.normalize(encoder(label_tokens.take(candidates.labels)))
            joined = labels + auxiliary(row_of_label[torch.from_numpy(candidates.labels)])
            scores = documents @ nn.functional.normalize(joined).T
            places = torch.arange(len(batch))
            columns = torch.from_numpy(np.searchsorted(candidates.labels, drawn))
            loss = hardest_triplet(
                negatives_only(scores, candidates),
                scores[places, columns],
                places,
                hardest=10,
                margin=0.3,
                temperature=0.05,
            ).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            pace()


class PaddedBag(nn.Module):
    """The bag of embeddings on padded batches: a masked mean of an embedding table's rows."""

    def __init__(self, job: Job, dataset: Dataset) -> None:
        super().__init__()
        bag = initial_encoder(job.encoder, dataset)
        self.dim = bag.dim
        table = bag.state(training=False)["encoder.table.weight"]
        self.table = nn.Embedding.from_pretrained(table, freeze=False)
        self.residual = nn.Linear(self.dim, self.dim)
        self.dropout = nn.Dropout(job.encoder.dropout)
        self._tokenizer = Tokenizer.from_file(str(dataset.tokenizer_file))

    def tokens(self, texts: list[str]) -> Ragged:
        return tokenized(self._tokenizer, texts, special=False)

    def forward(self, tokens: Ragged) -> Tensor:
        ids, mask = padded(tokens)
        weights = mask[:, :, None].float()
        sums = (self.table(ids) * weights).sum(1)
        vectors = sums / weights.sum(1).clamp_min(1.0).sqrt()
        out: Tensor = self.dropout(vectors + self.residual(torch.relu(vectors)))
        return out


class PaddedTransformer(nn.Module):
    """MiniLM by the library's own code, mean pooling, its own dropout on."""

    def __init__(self, job: Job) -> None:
        from transformers import AutoModel

        super().__init__()
        folder = str(model_folder("minilm"))
        self.model = AutoModel.from_pretrained(folder, num_hidden_layers=job.layers).train()
        self.dim = int(self.model.config.hidden_size)
        self._tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")

    def tokens(self, texts: list[str]) -> Ragged:
        return tokenized(self._tokenizer, texts, special=True)

    def forward(self, tokens: Ragged) -> Tensor:
        ids, mask = padded(tokens)
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask[:, :, None].float()
        out: Tensor = (hidden * weights).sum(1) / weights.sum(1)
        return out


def padded(tokens: Ragged) -> tuple[Tensor, Tensor]:
    """Ids and mask [B, longest]."""
    mask = np.arange(tokens.lengths.max()) < tokens.lengths[:, None]
    ids = np.zeros(mask.shape, np.int64)
    ids[mask] = tokens.data
    return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))


def tokenized(
    tokenizer: Tokenizer, texts: list[str], *, special: bool, longest: int = REFERENCE_TOKENS
) -> Ragged:
    tokenizer.no_padding()
    tokenizer.enable_truncation(longest)
    encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=special)
    return Ragged.from_rows([encoding.ids for encoding in encodings])


def peer_model(job: Job) -> Any:
    """sentence-transformers' model of the same size from the same weights."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import StaticEmbedding

    if job.layers:
        model = SentenceTransformer(str(model_folder("minilm")), device="cpu")
        transformer = model[0].auto_model
        transformer.encoder.layer = transformer.encoder.layer[: job.layers]
        return model
    dataset = Dataset.open(job.dataset)
    table = initial_encoder(job.encoder, dataset).state(training=False)["encoder.table.weight"]
    tokenizer = Tokenizer.from_file(str(dataset.tokenizer_file))
    static = StaticEmbedding(tokenizer, embedding_weights=table)
    return SentenceTransformer(modules=[static], device="cpu")


def encode_xcflow(job: Job, pace: Pace) -> NoReturn:
    """Tokeniser and encoder of a data set, as a prediction uses them."""
    dataset = Dataset.open(job.dataset)
    tokenizer = Tokenizer.from_file(str(dataset.tokenizer_file))
    _encode(initial_encoder(job.encoder, dataset), tokenizer, job.encoded_texts(), pace)


def export_xcflow(job: Job, pace: Pace) -> NoReturn:
    """As `export_embeddings` does it: the tokens stand in the data set, for all steps to use."""
    dataset = Dataset.open(job.dataset)
    encoder = initial_encoder(job.encoder, dataset)
    encoder.eval()
    rows = job.encoded_rows()
    while True:
        encoder.encode(dataset.train.tokens.take(rows))
        pace()


def encode_xcflow_without_words(job: Job, pace: Pace) -> NoReturn:
    """The same with the pre-trained vocabulary alone: as many tokens as the peer has."""
    file = model_folder("minilm") / "tokenizer.json"
    encoder = pretrained_transformer(job.encoder, file)
    _encode(encoder, Tokenizer.from_file(str(file)), job.encoded_texts(), pace)


def _encode(encoder: Encoder, tokenizer: Tokenizer, texts: list[str], pace: Pace) -> NoReturn:
    tokenizer.no_padding()
    tokenizer.no_truncation()
    encoder.eval()
    while True:
        # A reader that remembers nothing yet: it has seen none of these texts before.
        tokens = Ragged.from_rows(TextReader(tokenizer).ids(texts))
        encoder.encode(tokens)
        pace.notes["tokens_per_text"] = float(tokens.lengths.mean())
        pace()


def encode_sentence_transformers(job: Job, pace: Pace) -> NoReturn:
    """`encode` at the best of several batch sizes."""
    model, texts = peer_model(job), job.encoded_texts()

    def encode(texts: list[str], size: int) -> NDArray[np.float32]:
        return model.encode(
            texts, batch_size=size, normalize_embeddings=True, show_progress_bar=False
        )

    def seconds(size: int) -> float:
        start = time.perf_counter()
        encode(texts[: len(texts) // 2], size)
        return time.perf_counter() - start

    encode(texts[:100], 32)
    sizes = (16, 32, 64, 128, 256) if job.layers else (32, 256, 1024, 4096)
    best = min(sizes, key=seconds)
    pace.notes["batch_size"] = best
    pace.notes["tokens_per_text"] = float(np.mean([len(ids) for ids in _peer_ids(model, texts)]))
    while True:
        encode(texts, best)
        pace()


def _peer_ids(model: Any, texts: list[str]) -> list[list[int]]:
    tokenizer = model.tokenizer
    if isinstance(tokenizer, Tokenizer):
        return [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
    return list(tokenizer(texts, add_special_tokens=False)["input_ids"])


CONTENDERS: dict[str, Callable[[Job, Pace], None]] = {
    "train: xcflow": train_xcflow,
    "train: sentence-transformers": train_sentence_transformers,
    "train: plain PyTorch": train_plainly,
    "encode: xcflow": encode_xcflow,
    "encode: xcflow, stored tokens": export_xcflow,
    "encode: xcflow, no catalogue words": encode_xcflow_without_words,
    "encode: sentence-transformers": encode_sentence_transformers,
}

"""Small networks of every supported kind, each with inputs of its own: {name: (module, X)}."""

import torch
from torch import nn
from torch.nn.utils import parametrizations


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter, self.inner, self.leave = nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        h = self.enter(x)
        return self.leave(h + torch.relu(self.inner(h)))


class UsedTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter, self.twice, self.leave = nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x):
        return self.leave(torch.tanh(self.twice(torch.tanh(self.twice(self.enter(x))))))


class ConvUsedTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter, self.twice = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 3, 3, padding=1)
        self.leave = nn.Linear(3, 2)

    def forward(self, x):
        h = torch.tanh(self.twice(torch.tanh(self.twice(self.enter(x)))))
        return self.leave(h.mean(dim=(2, 3)))


class OutsideForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter, self.leave = nn.Linear(5, 4), nn.Linear(4, 2)

    def forward(self, x):
        h = torch.tanh(self.enter(x))
        return self.leave(h) + nn.functional.linear(h, self.leave.weight).square()


class NeverCalled(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter, self.leave = nn.Linear(5, 4), nn.Linear(4, 2)

    def forward(self, x):
        return nn.functional.linear(torch.tanh(self.enter(x)), self.leave.weight)


class TiedDecoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(5, 5), nn.Linear(5, 5)
        self.decoder.weight = self.encoder.weight

    def forward(self, x):
        return self.decoder(torch.sigmoid(self.encoder(x)))


class BareParameters(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.randn(5)), nn.Parameter(torch.randn(5))
        self.leave = nn.Linear(5, 2)

    def forward(self, x):
        return self.leave(torch.tanh(self.scale * x + self.shift))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.leave = nn.Linear(4, 2)

    def forward(self, x):
        return self.leave(self.attention(x, x, x, need_weights=False)[0].mean(1))


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.2, batch_first=True)
        self.leave = nn.Linear(4, 2)

    def forward(self, x):
        return self.leave(self.layer(x).mean(1))


class TimeFirst(nn.Module):
    """A Linear on (T, n, d): the first axis is not the samples."""

    def __init__(self):
        super().__init__()
        self.mix, self.leave = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.leave(torch.tanh(self.mix(x.transpose(0, 1))).mean(0))


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.recurrent, self.leave = kind(4, 3, batch_first=True), nn.Linear(3, 1)

    def forward(self, x):
        return self.leave(self.recurrent(x)[0][:, -1])


class Words(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.table, self.leave = nn.Embedding(7, 4, **options), nn.Linear(4, 2)

    def forward(self, x):
        return self.leave(torch.tanh(self.table(x)).mean(1))


class Table(nn.Module):
    """One column of a table is looked up: one index for each sample."""

    def __init__(self):
        super().__init__()
        self.table, self.leave = nn.Embedding(3, 2), nn.Linear(6, 2)

    def forward(self, x):
        category = self.table(x[:, 0].abs().clamp(max=2.9).long())
        return self.leave(torch.cat([torch.tanh(category), x[:, 1:]], dim=1))


class Bags(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.table, self.leave = nn.EmbeddingBag(7, 4, **options), nn.Linear(4, 2)

    def forward(self, x):
        return self.leave(torch.tanh(self.table(x)))


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter, self.norm = nn.Conv2d(1, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)
        self.inner, self.inner_norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.leave = nn.Linear(3, 2)
        for norm in (self.norm, self.inner_norm):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        h = torch.relu(self.norm(self.enter(x)))
        h = torch.relu(h + self.inner_norm(self.inner(h)))
        return self.leave(h.mean(dim=(2, 3)))


def _frozen():
    module = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    module[0].requires_grad_(False)
    module[2].weight.requires_grad_(False)
    module[4].bias.requires_grad_(False)
    return module


def _head(*modules, features):
    return nn.Sequential(*modules, nn.Tanh(), nn.Flatten(), nn.Linear(features, 2))


def build(seed=0):
    """Draw the zoo, in float64."""
    torch.manual_seed(seed)
    flat, wide = torch.randn(5, 5), torch.randn(5, 3, 4)
    signal, image, volume = (
        torch.randn(5, 2, 8),
        torch.randn(5, 1, 6, 6),
        torch.randn(5, 1, 4, 4, 4),
    )
    image2 = torch.randn(5, 2, 5, 5)
    words = torch.randint(0, 7, (5, 4))
    zoo = {
        "mlp": (nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)), flat),
        "deep": (nn.Sequential(nn.Linear(5, 4), nn.GELU(), nn.Linear(4, 4, bias=False), nn.SiLU(),
                               nn.Linear(4, 1)), flat),
        "in-place": (nn.Sequential(nn.Linear(5, 4), nn.ReLU(True), nn.Linear(4, 4),
                                   nn.LeakyReLU(0.2, True), nn.Linear(4, 2)), flat),
        "frozen": (_frozen(), flat),
        "residual": (Residual(), flat),
        "used twice": (UsedTwice(), flat),
        "outside forward": (OutsideForward(), flat),
        "never called": (NeverCalled(), flat),
        "tied": (TiedDecoder(), flat),
        "bare parameters": (BareParameters(), flat),
        "prelu": (nn.Sequential(nn.Linear(5, 4), nn.PReLU(4), nn.Linear(4, 2)), flat),
        "dropout": (nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5), nn.Softplus(),
                                   nn.Linear(4, 2)), flat),
        "spectral norm": (nn.Sequential(parametrizations.spectral_norm(nn.Linear(5, 4)), nn.Tanh(),
                                        nn.Linear(4, 2)), flat),
        "weight norm": (nn.Sequential(parametrizations.weight_norm(nn.Linear(5, 4)), nn.Tanh(),
                                      nn.Linear(4, 2)), flat),
        "tokens": (_head(nn.Linear(4, 3), features=9), wide),
        "wide tokens": (_head(nn.Linear(4, 20), nn.ReLU(), nn.Linear(20, 20), features=60), wide),
        "time first": (TimeFirst(), wide),
        "conv1d": (_head(nn.Conv1d(2, 3, 3, stride=2, padding=2, dilation=2), features=12),
                   signal),
        "conv1d circular": (_head(nn.Conv1d(2, 4, 3, padding=1, padding_mode="circular", groups=2),
                                  features=32), signal),
        "conv2d": (_head(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, (2, 3), stride=(1, 2)),
                         features=6), image),
        "conv2d reflect": (_head(nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect", bias=False),
                                 features=72), image),
        "conv2d replicate": (_head(nn.Conv2d(2, 2, 3, padding=2, padding_mode="replicate"),
                                   features=98), image2),
        "conv2d same grouped": (_head(nn.Conv2d(2, 6, 3, padding="same", groups=2), features=150),
                                image2),
        "depthwise": (_head(nn.Conv2d(2, 4, 3, groups=2, dilation=2), features=4), image2),
        "conv3d": (_head(nn.Conv3d(1, 2, 2, stride=2, padding=1), features=54), volume),
        "transposed": (_head(nn.ConvTranspose2d(1, 2, 3, stride=2), features=338), image),
        "conv used twice": (ConvUsedTwice(), image),
        "resnet": (ResNet(), image),
        "layer norm": (_head(nn.Linear(4, 6), nn.LayerNorm(6), features=18), wide),
        "layer norm 2d": (_head(nn.LayerNorm((3, 4)), features=12), wide),
        "rms norm": (_head(nn.Linear(4, 6), nn.RMSNorm(6), features=18), wide),
        "group norm": (_head(nn.Conv2d(2, 4, 2), nn.GroupNorm(2, 4), features=64), image2),
        "instance norm": (_head(nn.InstanceNorm2d(2, affine=True), features=50), image2),
        "batch norm 1d": (nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(),
                                        nn.Linear(4, 2)), flat),
        "attention": (Attention(), wide),
        "transformer": (Transformer(), wide),
        "lstm": (Recurrent(nn.LSTM), wide),
        "gru": (Recurrent(nn.GRU), wide),
        "rnn": (Recurrent(nn.RNN), wide),
        "embedding": (Words(), words),
        "embedding padded": (Words(padding_idx=2), words),
        "table": (Table(), flat),
        "bag mean": (Bags(), words),
        "bag sum padded": (Bags(mode="sum", padding_idx=1), words),
        "bag max": (Bags(mode="max"), words),
    }  # fmt: skip
    return {
        name: (module.double().eval(), X.double() if X.is_floating_point() else X)
        for name, (module, X) in zoo.items()
    }

"""What reading, splitting and auditing the data noted, and why rows were left out, in Korean."""

from __future__ import annotations

from collections.abc import Mapping

KOREAN_OF_DATA: Mapping[str, str] = {
    "learning from {part} of {whole} training rows (data.max_rows)": (
        "학습 행 {whole}개 가운데 {part}개로 학습합니다(data.max_rows)"
    ),
    "{number} {split} rows with a twin in train were dropped (data.on_leak)": (
        "학습 행에 쌍둥이가 있는 {split} 행 {number}개를 뺐습니다(data.on_leak)"
    ),
    "{leaked} of {rows} {split} rows have a twin in train, so their loss measures memory, not "
    "learning. For example {held_out} and {train} ({kind}): {texts}. {remedy}": (
        "{split} 행 {rows}개 가운데 {leaked}개는 학습 행에 쌍둥이가 있어서, 손실이 배운 것이 "
        "아니라 외운 것을 잽니다. 예: {held_out}, {train} ({kind}): {texts}. {remedy}"
    ),
    "{base} needs {tokens} tokens for a Hangul syllable: training and answers take that much "
    "longer, and {whole} about {room} syllables. A base that knows Korean needs under 1 (see "
    "{config})": (
        "{base}: 한글 음절 하나에 토큰이 {tokens}개 듭니다. 학습도 답도 그만큼 오래 걸리고, 한 "
        "번에 다룰 수 있는 글은 약 {room}음절입니다. 한국어를 아는 모델은 1개가 안 됩니다({config})"
    ),
    "{cut} of {rows} rows hang together by near-equal prompts in {components} above {share} of the "
    "rows: there, only equal prompts, equal long responses and groups were kept together": (
        "{rows}행 가운데 {cut}행은 비슷한 질문으로 이어져, 전체의 {share}보다 큰 덩어리 "
        "{components}에 들어 있습니다. 그 안에서는 질문이 같은 행, 긴 답이 같은 행, 묶음이 같은 "
        "행만 함께 두었습니다"
    ),
    "{label} of {rows} rows share their long response with more than {share} of the rows: it was "
    "taken for a label and joins no rows": (
        "{rows}행 가운데 {label}행은 긴 답이 전체의 {share}가 넘는 행과 같습니다. 그런 답은 "
        "분류 이름으로 보고, 행을 묶는 데 쓰지 않았습니다"
    ),
    "{split} has {got} where {asked} were asked for: rows that belong together were not parted, "
    "and the largest group has {largest}": (
        "{split} 데이터는 바란 {asked}행이 아니라 {got}입니다. 함께 두어야 하는 행은 나누지 "
        "않았고, 가장 큰 묶음은 {largest}입니다"
    ),
    "{file} is cp949, not UTF-8: read as cp949": (
        "{file}: UTF-8이 아니라 cp949여서 cp949로 읽었습니다"
    ),
    "{file} holds {content}, read as such": (
        "{file}: 파일 이름과 달리 {content} 형식이어서 그렇게 읽었습니다"
    ),
    '{file} wraps its rows in one list, "{key}": read as such': (
        '{file}: 행이 모두 "{key}" 목록 안에 있어서 그 목록을 읽었습니다'
    ),
    "{file} is {shape}; {rest}": "{file}: {shape} 형식, {rest}",
    "{file} is {shape}": "{file}: {shape} 형식",
    "{file}: {part} of {all} chats ended with a question that nobody answers: it was left out": (
        "{file}: 대화 {all}개 가운데 {part}개는 답이 없는 질문으로 끝나서 그 질문을 뺐습니다"
    ),
    "{file}: {part} of {all} prompts were rendered KoAlpaca ones: split back into instruction and "
    "input": (
        "{file}: 질문 {all}개 가운데 {part}개는 이미 KoAlpaca 템플릿에 담겨 있어서, 지시와 "
        "입력으로 되돌려 나누었습니다"
    ),
    "{file}: {part} of {all} texts began with words before the first header: left out": (
        "{file}: 글 {all}개 가운데 {part}개는 첫 머리글 앞에 말이 있어서 그 말을 뺐습니다"
    ),
    '{file}: {part} of {all} prompts hold a response mark ("### Response:", "<|im_start|>" …) '
    "already, so the template would be applied twice: set data.template to {setting}": (
        '{file}: 질문 {all}개 가운데 {part}개에 답의 표시("### Response:", "<|im_start|>" …)가 '
        "이미 있어서 템플릿이 두 번 들어갑니다. data.template을 {setting}로 두세요"
    ),
    # --- why a row was left out
    "answer does not fit into {count} tokens": "답이 {count}토큰 안에 들어가지 않음",
    "row is not an object ({type})": "행이 객체가 아님({type})",
    "turn is not an object ({type})": "대화의 차례가 객체가 아님({type})",
    "group is not a name ({type})": "group이 이름이 아님({type})",
    "{field} is not a list ({type})": "{field}: 목록이 아님({type})",
    "{field} is not text ({type})": "{field}: 글이 아님({type})",
    "U+0000 in {field}": "{field}: U+0000이 들어 있음",
    "half a character (lone surrogate) in {field}": "{field}: 반쪽 문자(짝 없는 서로게이트)",
    "more cells than columns": "열보다 칸이 많음",
    "empty instruction": "instruction이 비어 있음",
    "empty output": "output이 비어 있음",
    "empty {field} turn": "{field}: 빈 차례",
    "text without question and answer headers": "질문과 답의 머리글이 없는 글",
    "several questions in one text": "한 글에 질문이 여러 개",
    "no assistant turn": "assistant의 차례가 없음",
    "turns do not alternate between user and assistant": (
        "user와 assistant의 차례가 번갈아 나오지 않음"
    ),
    "tool turn": "도구의 차례가 들어 있음",
    "unknown role ({type})": "모르는 role({type})",
    "{field} turn without content": "{field}: 내용이 없는 차례",
    "no {field}": "{field} 없음",
}

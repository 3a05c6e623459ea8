"""Documents and questions in ten languages, of which it is known which document answers which question.

Each language has forty things; a document tells of one, in one of four sentences, and a question asks for it in other
words around it. The sentences have what texts from files and web pages have: no space behind a full stop, slashes,
soft hyphens, decomposed letters, particles, no spaces at all.
"""

# ruff: noqa: E501, RUF001
from __future__ import annotations

import unicodedata
from dataclasses import dataclass

_THINGS = {
    "English": "bridge kettle harbour violin ladder candle orchard compass saddle lantern anchor pillow tractor glacier "
    "pepper dolphin umbrella chimney museum sparrow hammer blanket cathedral mushroom telescope basket volcano curtain "
    "turtle needle oven railway squirrel pumpkin sculpture wallet meadow thunder pencil factory",
    "German": "Brücke Kessel Hafen Geige Leiter Kerze Obstgarten Kompass Sattel Laterne Anker Kissen Traktor Gletscher "
    "Pfeffer Delfin Regenschirm Schornstein Museum Spatz Hammer Decke Kathedrale Pilz Fernrohr Korb Vulkan Vorhang "
    "Schildkröte Nadel Ofen Eisenbahn Eichhörnchen Kürbis Skulptur Geldbörse Wiese Donner Bleistift Straße",
    "French": "pont bouilloire port violon échelle bougie verger boussole selle lanterne ancre oreiller tracteur glacier "
    "poivre dauphin parapluie cheminée musée moineau marteau couverture cathédrale champignon télescope panier volcan "
    "rideau tortue aiguille four chemin écureuil citrouille sculpture portefeuille prairie tonnerre crayon usine",
    "Russian": "мост чайник гавань скрипка лестница свеча сад компас седло фонарь якорь подушка трактор ледник перец "
    "дельфин зонт труба музей воробей молоток одеяло собор гриб телескоп корзина вулкан занавес черепаха игла печь "
    "поезд белка тыква скульптура кошелёк луг гром карандаш завод",
    "Hindi": "पुल केतली बंदरगाह वायलिन सीढ़ी मोमबत्ती बगीचा कम्पास काठी लालटेन लंगर तकिया ट्रैक्टर हिमनद मिर्च डॉल्फ़िन "
    "छाता चिमनी संग्रहालय गौरैया हथौड़ा कंबल गिरजाघर मशरूम दूरबीन टोकरी ज्वालामुखी परदा कछुआ सुई तंदूर रेलगाड़ी गिलहरी "
    "कद्दू मूर्ति बटुआ घास बिजली पेंसिल कारखाना",
    "Arabic": "جسر غلاية ميناء كمان سلم شمعة بستان بوصلة سرج فانوس مرساة وسادة جرار جليد فلفل دلفين مظلة مدخنة متحف "
    "عصفور مطرقة بطانية كاتدرائية فطر تلسكوب سلة بركان ستارة سلحفاة إبرة فرن قطار سنجاب يقطين تمثال محفظة مرج رعد قلم مصنع",
    "Chinese": "大桥 水壶 港口 小提琴 梯子 蜡烛 果园 指南针 马鞍 灯笼 船锚 枕头 拖拉机 冰川 胡椒 海豚 雨伞 烟囱 博物馆 麻雀 "
    "锤子 毯子 教堂 蘑菇 望远镜 篮子 火山 窗帘 乌龟 缝衣针 烤箱 铁路 松鼠 南瓜 雕塑 钱包 草地 雷声 铅笔 工厂",
    "Japanese": "橋梁 やかん 港湾 バイオリン はしご ろうそく 果樹園 羅針盤 馬具 提灯 いかり 枕元 トラクター 氷河 胡椒 イルカ "
    "雨傘 煙突 博物館 すずめ 金槌 毛布 大聖堂 きのこ 望遠鏡 かご 火山 カーテン 亀甲 縫い針 オーブン 鉄道 りす かぼちゃ 彫刻 "
    "財布 草原 雷鳴 鉛筆 工場",
    "Thai": "สะพาน กาน้ำ ท่าเรือ ไวโอลิน บันได เทียนไข สวนผลไม้ เข็มทิศ อานม้า โคมไฟ สมอเรือ หมอน รถไถ ธารน้ำแข็ง พริกไทย โลมา "
    "ร่ม ปล่องไฟ พิพิธภัณฑ์ นกกระจอก ค้อน ผ้าห่ม มหาวิหาร เห็ด กล้องดูดาว ตะกร้า ภูเขาไฟ ผ้าม่าน เต่า เข็มเย็บผ้า เตาอบ รถไฟ "
    "กระรอก ฟักทอง ประติมากรรม กระเป๋า ทุ่งหญ้า ฟ้าร้อง ดินสอ โรงงาน",
    "Korean": "다리 주전자 항구 바이올린 사다리 양초 과수원 나침반 안장 등불 닻줄 베개 트랙터 빙하 후추 돌고래 우산 굴뚝 박물관 "
    "참새 망치 담요 대성당 버섯 망원경 바구니 화산 커튼 거북이 바늘 오븐 철도 다람쥐 호박 조각상 지갑 초원 천둥 연필 공장",
}  # fmt: skip

_SENTENCES = {
    "English": ("The story ends here.{} and more follow", "Old/{}/new things of the town", "We saw the {}\u2014it was large",
                "a list of {}-2024 entries"),
    "German": ("Hier endet es.{} und mehr", "Alt/{}/neu in der Stadt", "Wir sahen: „{}“, sehr groß", "Eintrag {}-2024 der Liste"),
    "French": ("C’est la fin.{} et la suite", "ancien/{}/nouveau de la ville", "On parle d’«{}» ici", "liste {}-2024 complète"),
    "Russian": ("Здесь конец.{} и дальше", "старый/{}/новый город", "Мы видели «{}»—большой", "список {}-2024 весь"),
    "Hindi": ("यहाँ अंत है।{} और आगे", "पुराना/{}/नया शहर", "हमने “{}” देखा", "सूची {}-2024 पूरी"),
    "Arabic": ("هنا النهاية.{} والمزيد", "قديم/{}/جديد في المدينة", "رأينا «{}» كبيرة", "قائمة {}-2024 كاملة"),
    "Chinese": ("故事到此结束。{}还有更多", "我们昨天看到了{}在城里", "这里介绍新的{}和旧的东西", "列表中的{}2024年"),
    "Japanese": ("話はここで終わる。{}は続く", "昨日私たちは{}を町で見ました", "ここでは新しい{}と古い物を紹介する", "一覧の{}は2024年"),
    "Thai": ("เรื่องจบที่นี่{}ยังมีต่อ", "เมื่อวานเราเห็น{}ในเมือง", "ที่นี่แนะนำ{}ใหม่และของเก่า", "รายการ{}ปี2024"),
    "Korean": ("이야기는 여기서 끝난다.{}에서 계속", "어제 우리는 도시에서 {}를 보았다", "여기서는 새로운 {}와 옛것을 소개한다", "목록의 {}는2024년"),
}  # fmt: skip

_QUESTIONS = {
    "English": "what is known of the {}?", "German": "was weiß man über {}?", "French": "que sait-on de {} ?",
    "Russian": "что известно про {}?", "Hindi": "{} के बारे में क्या पता है?", "Arabic": "ماذا نعرف عن {}؟",
    "Chinese": "关于{}有什么消息?", "Japanese": "{}について教えてください", "Thai": "มีอะไรเกี่ยวกับ{}บ้าง",
    "Korean": "{}에 대해 알려 주세요",
}  # fmt: skip


@dataclass(frozen=True)
class Question:
    """A question, and the document that answers it."""

    language: str
    text: str
    article_id: str


def documents() -> dict[str, str]:
    """Return the content of each document by its article_id."""
    found = {}
    for language, things in _THINGS.items():
        for number, thing in enumerate(things.split()):
            content = _SENTENCES[language][number % 4].format(_written(thing, number))
            found[f"{language}-{number}"] = content
    return found


def questions() -> list[Question]:
    """Return forty questions of each language."""
    return [
        Question(language, _QUESTIONS[language].format(thing), f"{language}-{number}")
        for language, things in _THINGS.items()
        for number, thing in enumerate(things.split())
    ]


def _written(thing: str, number: int) -> str:
    """Return a thing as texts have it now and then: decomposed, with a soft hyphen or tatweel."""
    if number % 5 == 0:
        return unicodedata.normalize("NFD", thing)
    if number % 5 == 1 and thing[0] < "\u0900" and len(thing) > 4:
        invisible = "\u0640" if thing[0] > "\u0600" else "\u00ad"
        return thing[:3] + invisible + thing[3:]
    return thing
